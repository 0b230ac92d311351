"""SAP IS-U and S/4 Utilities: the enterprise services between SAP and a meter data system (MDUS)."""
