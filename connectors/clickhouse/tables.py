"""The declared columns of tables and views: what the migrations must add up to, and how Arrow carries them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_STRING, _LABEL, _TIME = "String", "LowCardinality(String)", "DateTime('UTC')"
_MAYBE_TIME = f"Nullable({_TIME})"

_MASTER: Final[dict[str, str]] = {
    "kind": _LABEL, "object": _STRING, "version": "Int64", "sequence": "Int64", "at": _TIME, "message": _STRING, "source": _LABEL,
    "user": _LABEL, "action": _LABEL, "span_from": "Array(Int64)", "span_to": "Array(Int64)", "span_body": "Array(String)",
}  # fmt: skip

# table → column → type as ClickHouse spells it
TABLES: Final[dict[str, dict[str, str]]] = {
    "payload_log": {
        "id": _STRING, "source": _LABEL, "format": _LABEL, "name": _STRING, "received_at": _TIME, "headers": "Map(String, String)",
        "body": _STRING, "topic": _LABEL, "partition": "Int32", "offset": "Int64",
    },
    "final_days": {
        "device": _STRING, "channel": _LABEL, "unit": _LABEL, "service_point": _STRING, "account": _STRING, "zone": _LABEL,
        "direction": "Int8", "day": "Date32", "day_start": _TIME, "seconds": "UInt32", "step": "Int64", "version": "Int64",
        "replaces": "Int64", "state": "UInt8", "dials": "UInt8", "multiplier": "Int64", "values": "Array(Int64)",
        "conditions": "Array(Int32)", "methods": "Array(UInt8)", "received": "Array(Int64)", "received_conditions": "Array(Int32)",
        "payload": _STRING, "source": _LABEL,
    },
    "register_reads": {
        "device": _STRING, "channel": _LABEL, "unit": _LABEL, "service_point": _STRING, "account": _STRING, "zone": _LABEL,
        "direction": "Int8", "at": _TIME, "reading": "Int64", "condition": "Int32", "method": "UInt8", "received": "Int64",
        "received_condition": "Int32", "version": "Int64", "replaces": "Int64", "state": "UInt8", "dials": "UInt8",
        "multiplier": "Int64", "payload": _STRING, "source": _LABEL,
    },
    "vee_exceptions": {
        "id": _STRING, "rule": _LABEL, "severity": _LABEL, "status": _LABEL, "version": "Int64", "device": _STRING,
        "channel": _LABEL, "service_point": _STRING, "payload": _STRING, "start": _TIME, "end": _TIME, "count": "Int32",
        "detail": _STRING,
    },
    "determinant_days": {
        "device": _STRING, "channel": _LABEL, "unit": _LABEL, "service_point": _STRING, "account": _STRING, "map": _LABEL,
        "day": "Date32", "start": _TIME, "end": _TIME, "seconds": "UInt32", "version": "Int64", "replaces": "Int64", "state": "UInt8",
        "condition": "Int32", "slots": "Int32", "actual": "Int32", "estimated": "Int32", "tou": "Array(LowCardinality(String))",
        "quantities": "Array(Int64)", "payload": _STRING,
    },
    "bill_determinants": {
        "id": _STRING, "account": _STRING, "service_point": _STRING, "device": _STRING, "channel": _LABEL, "period": _LABEL,
        "period_start": _TIME, "period_end": _TIME, "kind": _LABEL, "tou": _LABEL, "unit": _LABEL, "quantity": "Decimal(18, 6)",
        "condition": "Int32", "slots": "Int32", "actual": "Int32", "estimated": "Int32", "status": _LABEL, "version": "Int64",
        "replaces": _STRING, "reason": _STRING, "name": _STRING, "usage": _STRING, "moment": _MAYBE_TIME, "correction": _LABEL,
    },
    "usage_transactions": {
        "id": _STRING, "usage": _STRING, "account": _STRING, "group": _LABEL, "period_start": _TIME, "period_end": _TIME,
        "trigger": _LABEL, "status": _LABEL, "version": "Int64", "corrects": _STRING, "correction": _LABEL, "reason": _STRING,
        "bill": _STRING, "requests": _STRING, "quantities": _STRING, "at": _TIME,
    },
    "audit_events": {
        "id": _STRING, "at": _TIME, "actor": _LABEL, "action": _LABEL, "command": _STRING, "subject": _STRING, "device": _STRING,
        "channel": _LABEL, "start": _TIME, "end": _TIME, "reason": _LABEL, "outcome": _LABEL, "detail": _STRING, "before": _STRING,
        "after": _STRING, "bulk": _STRING, "approved_by": _LABEL, "principal": _STRING, "address": _STRING, "agent": _STRING,
        "writer": _LABEL, "sequence": "Int64", "previous": _STRING, "hash": _STRING,
    },
    "cis_messages": {
        "id": _STRING, "system": _LABEL, "protocol": _LABEL, "kind": _LABEL, "reference": _STRING, "bulk": "UInt8", "at": _TIME,
        "items": "Int32", "body": _STRING,
    },
    "cis_conversations": {
        "id": _STRING, "system": _LABEL, "kind": _LABEL, "subject": _STRING, "device": _STRING, "account": _STRING, "state": _LABEL,
        "at": _TIME, "version": "Int64", "detail": _STRING,
    },
    "delivery_log": {
        "id": _STRING, "subscriber": _LABEL, "object": _LABEL, "status": _LABEL, "version": "Int64", "at": _TIME, "since": _TIME,
        "attempt": "Int32", "next_at": _TIME, "channel": _LABEL, "place": _STRING, "topic": _LABEL, "partition": "Int32",
        "first": "Int64", "last": "Int64", "key": _STRING, "records": "Int32", "bytes": "Int64", "code": "Int32", "reason": _STRING,
        "replay": "Int64",
    },
    "event_log": {
        "id": _STRING, "device": _STRING, "kind": _LABEL, "code": _LABEL, "at": _TIME, "source": _LABEL, "severity": _LABEL,
        "detail": _STRING, "payload": _STRING,
    },
    "receipts": {
        "payload": _STRING, "id": _STRING, "agent": _LABEL, "children": "Int32", "parent": _STRING, "status": _LABEL,
        "source": _LABEL, "format": _LABEL, "received_at": _TIME, "rows": "Int32", "reads": "Int64", "finals": "Int32",
        "exceptions": "Int32", "parked": "Int32", "dead": "Int32", "reason": _STRING, "until": "Int64",
    },
    "tick_receipts": {
        "at": _TIME, "payload": _STRING, "id": _STRING, "agent": _LABEL, "children": "Int32", "parent": _STRING,
    },
    "prepaid_postings": {
        "id": _STRING, "account": _STRING, "sequence": "Int64", "at": _TIME, "kind": _LABEL, "component": _LABEL, "debit": _STRING,
        "credit": _STRING, "amount": "Int64", "currency": _LABEL, "change": "Int64", "balance": "Int64", "day": _LABEL, "month":
        _LABEL, "provisional": "Bool", "cause": _STRING, "reference": _STRING, "reason": _STRING, "user": _LABEL, "previous":
        _STRING, "hash": _STRING,
    },
    "prepaid_account_states": {
        "account": _STRING, "version": "Int64", "as_of": _TIME, "service_point": _STRING, "device": _STRING, "zone": _LABEL,
        "tariff": _LABEL, "currency": _LABEL, "balance": "Int64", "provisional": "Int64", "debt": "Int64", "emergency": "Int64",
        "state": _LABEL, "level": _LABEL, "hold": _STRING, "trouble": _STRING, "daily": "Int64", "days_left": "Nullable(Int32)",
        "cut_from": _MAYBE_TIME, "measured_until": _MAYBE_TIME, "postings": "Int64", "hash": _STRING,
    },
    "prepaid_notice_log": {
        "id": _STRING, "account": _STRING, "at": _TIME, "not_before": _TIME, "kind": _LABEL, "level": _LABEL, "balance": "Int64",
        "currency": _LABEL, "days_left": "Nullable(Int32)", "amount": "Nullable(Int64)", "cut_from": _MAYBE_TIME, "detail": _STRING,
        "sequence": "Int64",
    },
    "prepaid_outcome_log": {
        "id": _STRING, "account": _STRING, "at": _TIME, "action": _LABEL, "status": _LABEL, "detail": _STRING, "posting": _STRING,
        "balance": "Int64", "state": _LABEL, "command": _STRING, "content": _STRING,
    },
    "prepaid_proof_log": {
        "id": _STRING, "partition": "Int32", "at": _TIME, "currency": _LABEL, "accounts": "Int64", "postings": "Int64", "debits":
        "Int64", "credits": "Int64", "customers": "Int64", "debts": "Int64", "emergencies": "Int64", "chain": _STRING, "holds":
        "Bool", "detail": _STRING,
    },
    "device_command_log": {
        "id": _STRING, "device": _STRING, "action": _LABEL, "issued_at": _TIME, "expires_at": _TIME, "by": _LABEL, "reason":
        _STRING, "reference": _STRING, "text": _STRING, "limit": "Nullable(Int64)",
    },
    "device_reply_log": {
        "command": _STRING, "device": _STRING, "status": _LABEL, "at": _TIME, "code": _LABEL, "detail": _STRING,
    },
    "todo_items": {
        "id": _STRING, "version": "Int64", "type": _LABEL, "state": _LABEL, "priority": "Int32", "role": _LABEL, "user": _LABEL,
        "subject": _STRING, "device": _STRING, "channel": _LABEL, "service_point": _STRING, "account": _STRING, "payload": _STRING,
        "rule": _LABEL, "severity": _LABEL, "count": "Int64", "open": "Int64", "grouped": "Bool", "first_seen": _TIME,
        "last_seen": _TIME, "start": _MAYBE_TIME, "end": _MAYBE_TIME, "assign_by": _MAYBE_TIME, "resolve_by": _MAYBE_TIME,
        "level": "Int32", "detail": _STRING, "outcome": _LABEL, "reason": _STRING, "completed_at": _MAYBE_TIME,
        "exceptions": "Array(String)", "commodity": _LABEL, "region": _LABEL, "customer_class": _LABEL, "bill_at": _MAYBE_TIME,
    },
    "todo_open": {
        "id": _STRING, "version": "Int64", "type": _LABEL, "state": _LABEL, "priority": "Int32", "role": _LABEL, "user": _LABEL,
        "subject": _STRING, "device": _STRING, "channel": _LABEL, "service_point": _STRING, "account": _STRING, "payload": _STRING,
        "rule": _LABEL, "severity": _LABEL, "count": "Int64", "open": "Int64", "grouped": "Bool", "first_seen": _TIME,
        "last_seen": _TIME, "start": _MAYBE_TIME, "end": _MAYBE_TIME, "assign_by": _MAYBE_TIME, "resolve_by": _MAYBE_TIME,
        "level": "Int32", "detail": _STRING, "outcome": _LABEL, "reason": _STRING, "completed_at": _MAYBE_TIME,
        "exceptions": "Array(String)", "done": "UInt8", "commodity": _LABEL, "region": _LABEL, "customer_class": _LABEL,
        "bill_at": _MAYBE_TIME,
    },
    "todo_event_log": {
        "id": _STRING, "todo": _STRING, "version": "Int64", "at": _TIME, "action": _LABEL, "user": _LABEL, "command": _STRING,
        "before": _STRING, "after": _STRING, "text": _STRING,
    },
    "todo_outcome_log": {
        "id": _STRING, "at": _TIME, "action": _LABEL, "user": _LABEL, "status": _LABEL, "detail": _STRING, "done": "Array(String)",
        "conflicts": "Array(String)",
    },
    "refused_records": {
        "topic": _LABEL, "partition": "Int32", "offset": "Int64", "at": _TIME, "reason": _STRING, "key": _STRING,
        "value": _STRING, "headers": "Map(String, String)",
    },
    "master_items": {
        "item": _STRING, "message": _STRING, "source": _LABEL, "user": _LABEL, "at": _TIME, "sequence": "Int64", "action": _LABEL,
        "kind": _LABEL, "object": _STRING, "outcome": _LABEL, "reason": _STRING, "version": "Int64",
    },
    "master_objects": _MASTER,
    "master_versions": _MASTER,
    "sink_positions": {"sink": _STRING, "topic": _STRING, "partition": "Int32", "offset": "Int64"},
}  # fmt: skip

# The public contract; docs/tables.md tells what each column means
VIEWS: Final[dict[str, dict[str, str]]] = {
    "intervals": {
        "device": _STRING, "channel": _LABEL, "unit": _LABEL, "start": _TIME, "seconds": "UInt32",
        "value": "Nullable(Decimal(18, 6))", "condition": "Int32", "method": _STRING, "version": "Int64",
        "condition_name": _STRING, "day": "Date32", "direction": _STRING, "state": _STRING, "service_point": _STRING,
        "account": _STRING, "zone": _LABEL, "source": _LABEL, "payload": _STRING,
    },
    "registers": {
        "device": _STRING, "channel": _LABEL, "unit": _LABEL, "at": _TIME, "reading": "Nullable(Decimal(18, 6))",
        "condition": "Int32", "version": "Int64", "condition_name": _STRING, "method": _STRING, "direction": _STRING,
        "state": _STRING, "dials": "UInt8", "multiplier": "Decimal(18, 6)", "service_point": _STRING, "account": _STRING,
        "zone": _LABEL, "source": _LABEL, "payload": _STRING,
    },
    "exceptions": {
        "rule": _LABEL, "severity": _LABEL, "device": _STRING, "channel": _LABEL, "start": _TIME, "end": _TIME,
        "status": _LABEL, "detail": _STRING, "count": "Int32", "id": _STRING, "version": "Int64", "service_point": _STRING,
        "payload": _STRING,
    },
    "determinants": {
        "account": _STRING, "device": _STRING, "period_start": _TIME, "period_end": _TIME, "kind": _STRING, "tou": _STRING,
        "unit": _STRING, "quantity": "Decimal(18, 6)", "version": "Int64", "period": _STRING, "channel": _STRING,
        "service_point": _STRING, "condition": "Int32", "slots": "Int32", "actual": "Int32", "estimated": "Int32",
        "status": _STRING, "id": _STRING, "replaces": _STRING, "reason": _STRING, "name": _STRING, "usage": _STRING,
        "moment": _MAYBE_TIME, "correction": _STRING,
    },
    "usage": {
        "account": _STRING, "period_start": _TIME, "period_end": _TIME, "group": _STRING, "trigger": _STRING, "status": _STRING,
        "version": "Int64", "correction": _STRING, "reason": _STRING, "bill": _STRING, "requests": _STRING, "quantities": _STRING,
        "at": _TIME, "id": _STRING, "corrects": _STRING, "usage": _STRING,
    },
    "payloads": {
        "id": _STRING, "source": _STRING, "format": _STRING, "received_at": f"Nullable({_TIME})", "status": _STRING,
        "reads": "Int64", "finals": "Int64", "exceptions": "Int64", "parked": "Int64", "dead": "Int64", "blocks": "UInt64",
        "name": _STRING, "bytes": "UInt64", "reason": _STRING,
    },
    "device_events": {
        "device": _STRING, "kind": _LABEL, "at": _TIME, "code": _LABEL, "severity": _LABEL, "detail": _STRING, "source": _LABEL,
        "payload": _STRING, "id": _STRING,
    },
    "outages": {
        "device": _STRING, "began": _TIME, "ended": f"Nullable({_TIME})", "seconds": "Nullable(Int64)",
    },
    "prepaid_ledger": {
        "id": _STRING, "account": _STRING, "sequence": "Int64", "at": _TIME, "kind": _LABEL, "component": _LABEL, "debit": _STRING,
        "credit": _STRING, "amount": "Int64", "currency": _LABEL, "change": "Int64", "balance": "Int64", "day": _LABEL, "month":
        _LABEL, "provisional": "Bool", "cause": _STRING, "reference": _STRING, "reason": _STRING, "user": _LABEL, "previous":
        _STRING, "hash": _STRING,
    },
    "prepaid_accounts": {
        "account": _STRING, "version": "Int64", "as_of": _TIME, "service_point": _STRING, "device": _STRING, "zone": _LABEL,
        "tariff": _LABEL, "currency": _LABEL, "balance": "Int64", "provisional": "Int64", "debt": "Int64", "emergency": "Int64",
        "state": _LABEL, "level": _LABEL, "hold": _STRING, "trouble": _STRING, "daily": "Int64", "days_left": "Nullable(Int32)",
        "cut_from": _MAYBE_TIME, "measured_until": _MAYBE_TIME, "postings": "Int64", "hash": _STRING,
    },
    "prepaid_notices": {
        "id": _STRING, "account": _STRING, "at": _TIME, "not_before": _TIME, "kind": _LABEL, "level": _LABEL, "balance": "Int64",
        "currency": _LABEL, "days_left": "Nullable(Int32)", "amount": "Nullable(Int64)", "cut_from": _MAYBE_TIME, "detail": _STRING,
        "sequence": "Int64",
    },
    "device_commands": {
        "id": _STRING, "device": _STRING, "action": _LABEL, "issued_at": _TIME, "expires_at": _TIME, "by": _LABEL, "reason":
        _STRING, "reference": _STRING, "text": _STRING, "limit": "Nullable(Int64)", "status": _STRING, "replied_at": _MAYBE_TIME,
        "detail": _STRING,
    },
    "todos": {
        "id": _STRING, "version": "Int64", "type": _LABEL, "state": _LABEL, "priority": "Int32", "role": _LABEL, "user": _LABEL,
        "subject": _STRING, "device": _STRING, "channel": _LABEL, "service_point": _STRING, "account": _STRING, "payload": _STRING,
        "rule": _LABEL, "severity": _LABEL, "count": "Int64", "open": "Int64", "grouped": "Bool", "first_seen": _TIME,
        "last_seen": _TIME, "start": _MAYBE_TIME, "end": _MAYBE_TIME, "assign_by": _MAYBE_TIME, "resolve_by": _MAYBE_TIME,
        "level": "Int32", "detail": _STRING, "outcome": _LABEL, "reason": _STRING, "completed_at": _MAYBE_TIME,
        "exceptions": "Array(String)", "commodity": _LABEL, "region": _LABEL, "customer_class": _LABEL, "bill_at": _MAYBE_TIME,
    },
    "todo_queue": {
        "id": _STRING, "version": "Int64", "type": _LABEL, "state": _LABEL, "priority": "Int32", "role": _LABEL, "user": _LABEL,
        "subject": _STRING, "device": _STRING, "channel": _LABEL, "service_point": _STRING, "account": _STRING, "payload": _STRING,
        "rule": _LABEL, "severity": _LABEL, "count": "Int64", "open": "Int64", "grouped": "Bool", "first_seen": _TIME,
        "last_seen": _TIME, "start": _MAYBE_TIME, "end": _MAYBE_TIME, "assign_by": _MAYBE_TIME, "resolve_by": _MAYBE_TIME,
        "level": "Int32", "detail": _STRING, "outcome": _LABEL, "reason": _STRING, "completed_at": _MAYBE_TIME,
        "exceptions": "Array(String)", "commodity": _LABEL, "region": _LABEL, "customer_class": _LABEL, "bill_at": _MAYBE_TIME,
    },
    "todo_history": {
        "todo": _STRING, "version": "Int64", "at": _TIME, "action": _LABEL, "user": _LABEL, "text": _STRING, "before": _STRING,
        "after": _STRING, "command": _STRING, "id": _STRING,
    },
    "audit": {
        "at": _TIME, "actor": _LABEL, "action": _LABEL, "outcome": _LABEL, "detail": _STRING, "reason": _LABEL, "device": _STRING,
        "channel": _LABEL, "start": _TIME, "end": _TIME, "before": _STRING, "after": _STRING, "command": _STRING,
        "subject": _STRING, "id": _STRING, "bulk": _STRING, "approved_by": _LABEL, "principal": _STRING, "address": _STRING,
        "agent": _STRING, "writer": _LABEL, "sequence": "Int64", "previous": _STRING, "hash": _STRING,
    },
    "conversations": {
        "system": _LABEL, "kind": _LABEL, "subject": _STRING, "state": _LABEL, "at": _TIME, "device": _STRING, "account": _STRING,
        "detail": _STRING, "version": "Int64", "id": _STRING,
    },
    "conversation_messages": {
        "at": _TIME, "system": _LABEL, "kind": _LABEL, "reference": _STRING, "items": "Int32", "body": _STRING, "protocol": _LABEL,
        "bulk": "UInt8", "id": _STRING,
    },
    "deliveries": {
        "subscriber": _LABEL, "object": _LABEL, "status": _LABEL, "at": _TIME, "since": _TIME, "attempt": "Int32",
        "next_at": f"Nullable({_TIME})", "channel": _LABEL, "place": _STRING, "records": "Int32", "bytes": "Int64", "code": "Int32",
        "reason": _STRING, "key": _STRING, "topic": _LABEL, "partition": "Int32", "first": "Int64", "last": "Int64", "replay": "Int64",
        "id": _STRING,
    },
    "master": {
        "kind": _LABEL, "id": _STRING, "span": "UInt32", "valid_from": f"Nullable({_TIME})", "valid_to": f"Nullable({_TIME})",
        "device": _STRING, "service_point": _STRING, "account": _STRING, "attributes": _STRING, "version": "Int64",
        "changed_at": _TIME, "source": _LABEL,
    },
    "master_history": {
        "kind": _LABEL, "id": _STRING, "version": "Int64", "changed_at": _TIME, "source": _LABEL, "user": _LABEL, "action": _LABEL,
        "message": _STRING, "span_from": "Array(Int64)", "span_to": "Array(Int64)", "attributes": "Array(String)",
    },
}  # fmt: skip

# How Arrow carries a type into ClickHouse; payloads' bytes are set apart below
_ARROW: Final[dict[str, pa.DataType]] = {
    _STRING: pa.string(),
    _LABEL: pa.string(),
    _TIME: pa.uint32(),
    "Date32": pa.date32(),
    "Int8": pa.int8(),
    "UInt8": pa.uint8(),
    "Int32": pa.int32(),
    "UInt32": pa.uint32(),
    "Int64": pa.int64(),
    "Nullable(Int32)": pa.int32(),
    "Nullable(Int64)": pa.int64(),
    _MAYBE_TIME: pa.uint32(),
    "Bool": pa.bool_(),
    "Array(String)": pa.list_(pa.string()),
    "Decimal(18, 6)": pa.decimal128(18, 6),
    "Array(Int64)": pa.list_(pa.int64()),
    "Map(String, String)": pa.map_(pa.string(), pa.string()),
}
_BYTES: Final = {("payload_log", "body"), ("refused_records", "key"), ("refused_records", "value")}


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of rows built one by one for a table. Raises KeyError for a table with arrays: rows.py builds those."""
    types = {name: pa.binary() if (table, name) in _BYTES else _ARROW[kind] for name, kind in TABLES[table].items()}
    return pa.schema(list(types.items()))
