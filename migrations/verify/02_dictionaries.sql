-- expect: US | MISSING
SELECT dictGetOrDefault('${database}.dict_iplocate_asn', 'country_code', toIPv6(toIPv4('8.8.8.8')), 'MISSING');
