-- expect: 1
EXISTS ${database}.anubis_ua_rules;
-- expect: 1
EXISTS ${database}.anubis_ip_rules;
-- expect: 1
EXISTS ${database}.anubis_asn_rules;
-- expect: 1
EXISTS ${database}.anubis_country_rules;
-- expect: 4
SELECT count() FROM system.dictionaries WHERE database = '${database}' AND name LIKE 'dict_anubis_%' AND last_exception = '';
