"""XSD and WSDL from the catalogue, and the validators the door checks messages with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from lxml import etree
from lxml.builder import ElementMaker

from connectors.enterprise.sap.catalog import HEADER, LOG, Catalog, Field, Root, Service, catalog

XSD: Final = "http://www.w3.org/2001/XMLSchema"
WSDL: Final = "http://schemas.xmlsoap.org/wsdl/"
SOAP11_BINDING: Final = "http://schemas.xmlsoap.org/wsdl/soap/"
SOAP12_BINDING: Final = "http://schemas.xmlsoap.org/wsdl/soap12/"
HTTP: Final = "http://schemas.xmlsoap.org/soap/http"
_X = ElementMaker(namespace=XSD, nsmap={"xsd": XSD})


def schema_of(roots: Iterable[Root], *, target: bool = True) -> Any:
    """An ``xsd:schema`` with the given root elements and all types they need.

    With ``target`` as SAP publishes them: roots in the namespace, everything inside unqualified. Without, the same with no
    namespace and one global element per item, which is what single items of a stream are checked with.
    """
    known = catalog()
    roots = tuple(roots)
    attributes = {"elementFormDefault": "unqualified"}
    prefix, nsmap = "", {"xsd": XSD}
    if target:
        attributes["targetNamespace"] = known.namespace
        prefix, nsmap = "tns:", {"xsd": XSD, "tns": known.namespace}
    schema = etree.Element(f"{{{XSD}}}schema", attributes, nsmap=nsmap)
    types: dict[str, None] = {}
    for root in roots:
        schema.append(_element(Field(root.name, ""), None, _body_of(root, prefix)))
        if not target and root.item:
            schema.append(_element(Field(root.item, ""), None, _message(root, prefix)))
        for field in root.fields:
            _collect(known, field.type, types)
    for name in types:
        schema.append(_type(known, name, prefix))
    return schema


def _collect(known: Catalog, name: str, found: dict[str, None]) -> None:
    if name in found:
        return
    found[name] = None
    for field in known.groups.get(name, ()):
        _collect(known, field.type, found)


def _body_of(root: Root, prefix: str) -> Any:
    if root.item is None:
        return _message(root, prefix)
    header = _element(Field(HEADER, HEADER), prefix)
    item = _element(Field(root.item, "", 0, None), None, _message(root, prefix))
    return _X.complexType(_X.sequence(header, item))


def _message(root: Root, prefix: str) -> Any:
    return _X.complexType(_X.sequence(*(_element(field, prefix) for field in root.fields)))


def _element(field: Field, prefix: str | None, inner: Any = None) -> Any:
    attributes = {"name": field.name}
    if inner is None:
        attributes["type"] = f"{prefix}{field.type}"
    if field.low != 1:
        attributes["minOccurs"] = str(field.low)
    if field.high is None:
        attributes["maxOccurs"] = "unbounded"
    return _X.element(*([] if inner is None else [inner]), **attributes)


def _type(known: Catalog, name: str, prefix: str) -> Any:
    if name in known.groups:
        return _X.complexType(_X.sequence(*(_element(field, prefix) for field in known.groups[name])), name=name)
    rule = known.simple[name]
    facets = {"min": "minLength", "max": "maxLength", "pattern": "pattern"}
    inside = [_X(facet, value=str(rule[word])) for word, facet in facets.items() if word in rule]
    return _X.simpleType(_X.restriction(*inside, base=f"xsd:{rule['base']}"), name=name)


@cache
def item_validator(root: str) -> Any:
    """The validator of single items (or whole messages) of a root element, namespaces taken off."""
    return etree.XMLSchema(schema_of([catalog().roots[root]], target=False))


@cache
def header_validator() -> Any:
    """The validator of a message header alone."""
    known, types = catalog(), dict[str, None]()
    _collect(known, HEADER, types)
    schema = etree.Element(f"{{{XSD}}}schema", nsmap={"xsd": XSD})
    schema.append(_element(Field(HEADER, HEADER), ""))
    for name in types:
        schema.append(_type(known, name, ""))
    return etree.XMLSchema(schema)


@cache
def message_validator(service: str) -> Any:
    """The validator of whole messages of a service, as its WSDL publishes them."""
    return etree.XMLSchema(schema_of(catalog().services[service].roots))


def wsdl_of(service: Service, address: str) -> bytes:
    """The WSDL of a service: a one-way operation per root element that its taker implements, SOAP 1.1 and 1.2 bindings.

    Answers travel as messages of their own: the confirmations are described beside the requests, in the port that the other side
    implements.
    """
    known = catalog()
    nsmap = {"wsdl": WSDL, "soap": SOAP11_BINDING, "soap12": SOAP12_BINDING, "tns": known.namespace, "xsd": XSD}
    make = ElementMaker(namespace=WSDL, nsmap=nsmap)
    definitions = make.definitions(name=service.name, targetNamespace=known.namespace)
    definitions.append(make.types(schema_of(service.roots)))
    for root in service.roots:
        definitions.append(make.message(make.part(name="parameters", element=f"tns:{root.name}"), name=root.name))
    ports = [(side, roots) for side in ("hub", "sap") if (roots := service.taken_by(side))]
    for side, roots in ports:
        operations = [make.operation(make.input(message=f"tns:{root.name}"), name=root.name) for root in roots]
        definitions.append(make.portType(*operations, name=f"{service.name}_{side}"))
    for side, roots in ports:
        for words, space in (("11", SOAP11_BINDING), ("12", SOAP12_BINDING)):
            definitions.append(_binding(make, service, side, roots, words, space))
    definitions.append(make.service(*_places(make, service, ports, address), name=service.name))
    etree.cleanup_namespaces(definitions, keep_ns_prefixes=["tns", "xsd", "soap", "soap12"])
    return etree.tostring(definitions, xml_declaration=True, encoding="utf-8", pretty_print=True)


def _binding(make: Any, service: Service, side: str, roots: tuple[Root, ...], words: str, space: str) -> Any:
    soap = ElementMaker(namespace=space)
    binding = make.binding(
        soap.binding(style="document", transport=HTTP), name=f"{service.name}_{side}{words}", type=f"tns:{service.name}_{side}"
    )
    for root in roots:
        action = f"{catalog().namespace}/{root.name}"
        binding.append(make.operation(soap.operation(soapAction=action), make.input(soap.body(use="literal")), name=root.name))
    return binding


def _places(make: Any, service: Service, ports: list[tuple[str, tuple[Root, ...]]], address: str) -> Iterator[Any]:
    for side, _ in ports:
        for words, space in (("11", SOAP11_BINDING), ("12", SOAP12_BINDING)):
            location = address if side == "hub" else f"urn:sap:{service.name}"  # SAP's own address is its administrator's
            place = ElementMaker(namespace=space).address(location=location)
            yield make.port(place, name=f"{service.name}_{side}{words}", binding=f"tns:{service.name}_{side}{words}")


__all__ = ["HEADER", "LOG", "header_validator", "item_validator", "message_validator", "schema_of", "wsdl_of"]
