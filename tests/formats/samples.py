"""One small file per format, and decoded reads as plain Python for comparison."""

from __future__ import annotations

from typing import Any

from connectors.head_end.formats import Decoded
from schemas.block import starts_of

CSV = b"""device,channel,unit,seconds,start,value,condition
M1,1.8.0,kWh,900,2024-10-27T00:00:00Z,0.25,actual
M1,1.8.0,kWh,900,2024-10-27T00:15:00Z,0.5,estimated
M1,1.8.0,kWh,900,2024-10-27T00:30:00Z,,
M1,1.8.0,kWh,900,2024-10-27T01:00:00+00:00,1.1234565,500000
"M,2",2.8.0,kWh,3600,2024-10-27T02:00:00+01:00,-3,outage
"""
REGISTERS = b"""device,channel,unit,at,reading,condition
W1,vol,m3,2024-01-01T00:00:00Z,100.5,actual
W1,vol,m3,2024-02-01T00:00:00Z,110.25,
W2,vol,m3,2024-02-01T00:00:00Z,,missing
"""
JSON = b"""{"source": "hes-1", "reads": [
 {"device": "M1", "channel": "1.8.0", "unit": "kWh", "seconds": 900, "start": "2024-01-01T00:00:00Z",
  "values": [0.1, "0.2", null, 1.5], "conditions": ["actual", "estimated", null, 500000]},
 {"device": "W1", "channel": "vol", "unit": "m3",
  "readings": [{"at": "2024-01-01T00:00:00Z", "value": "10.5", "condition": "actual"}, {"at": "2024-01-02T00:00:00Z", "value": 11}]}
]}
"""
IMD = b"""<?xml version="1.0" encoding="UTF-8"?>
<SGGIMDsEvents xmlns="http://oracle.com/SGGIMDsEvents">
 <D1-DeviceEventSeeder><externalSenderId>H</externalSenderId></D1-DeviceEventSeeder>
 <D1-InitialLoadIMD dateTimeTagFormat="xsd">
  <serviceProviderExternalId>HES1</serviceProviderExternalId>
  <preVEE>
   <dvcIdN>METER1</dvcIdN><mcIdN>1.0.1.8.0.255</mcIdN><externalUOM>KWH</externalUOM><mcm>40</mcm>
   <stDt>2026-01-01T00:00:00</stDt><enDt>2026-01-01T01:00:00</enDt><spi>900</spi>
   <msrs>
    <mL><s>1</s><q>0.25</q><sts><stsL><st>E</st></stsL></sts></mL>
    <mL><s>2</s><q>0.5</q><fc>500000</fc></mL>
    <mL><s>4</s><q>0.75</q></mL>
   </msrs>
  </preVEE>
 </D1-InitialLoadIMD>
 <D1-InitialLoadIMD>
  <preVEE>
   <dvcIdN>METER1</dvcIdN><mcIdN>1-0:2.8.0*255</mcIdN><externalUOM>kWh</externalUOM>
   <stDt>2026-01-01-00.00.00</stDt><enDt>2026-02-01-00.00.00</enDt><enQty>1234.5</enQty>
  </preVEE>
 </D1-InitialLoadIMD>
</SGGIMDsEvents>
"""
NEM12 = (
    b"100,NEM12,200404201300,MDA1,Ret1\n200,6001000001,E1B1,1,E1,N1,S1,KWH,30,\n300,20240417," + b"0.5," * 47 + b"1.25,V,,,20240418,\n"
    b"400,1,20,F14,76,\n400,21,48,A,,\n200,6001000001,E1B1,2,B1,N1,S1,KWH,30,\n300,20240417,"
    + b"1," * 48
    + b"A,,,20240418,\n500,O,S1,20240416,1\n900\n"
)
NEM13 = (
    b"100,NEM13,200401101030,MDA1,Ret1\n250,6001000002,11,1,11,11,S1,E,006342.8,20031005093055,A,,,007654.9,20040107100333,E64,,,"
    b"1312.1,kWh,20040407, 20040108100333,20040108091133\n550,N,,E,\n900\n"
)
ALL = {"csv": CSV, "registers": REGISTERS, "json": JSON, "imd": IMD, "nem12": NEM12, "nem13": NEM13}

Key = tuple[str, str, str, int]


def reads_of(decoded: Decoded) -> dict[Key, list[tuple[int, int, int]]]:
    """Per (device, channel, unit, seconds) the (UTC second, millionths, condition) of every read, in the order of the blocks."""
    found: dict[Key, list[tuple[int, int, int]]] = {}
    for block in decoded.blocks:
        begins, times = starts_of(block.count), starts_of(block.reads)
        for row in range(len(block)):
            seconds, count = int(block.seconds[row]), int(block.count[row])
            part = slice(int(begins[row]), int(begins[row]) + count)
            at: Any = (
                range(int(block.start[row]), int(block.start[row]) + count * seconds, seconds)
                if seconds
                else block.times[int(times[row]) : int(times[row]) + count].tolist()
            )
            key = (block.device[row].as_py(), block.channel[row].as_py(), block.unit[row].as_py(), seconds)
            found.setdefault(key, []).extend(zip(at, block.values[part].tolist(), block.conditions[part].tolist(), strict=True))
    return found


def total_of(reads: list[tuple[int, int, int]]) -> int:
    """The sum in millionths."""
    return sum(value for _, value, _ in reads)
