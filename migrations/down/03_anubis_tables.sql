DROP DICTIONARY IF EXISTS ${database}.dict_anubis_country;
DROP DICTIONARY IF EXISTS ${database}.dict_anubis_asn;
DROP DICTIONARY IF EXISTS ${database}.dict_anubis_ip;
DROP DICTIONARY IF EXISTS ${database}.dict_anubis_ua;
DROP TABLE IF EXISTS ${database}.anubis_country_rules;
DROP TABLE IF EXISTS ${database}.anubis_asn_rules;
DROP TABLE IF EXISTS ${database}.anubis_ip_rules;
DROP TABLE IF EXISTS ${database}.anubis_ua_rules;
