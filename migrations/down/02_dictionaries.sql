DROP DICTIONARY IF EXISTS ${database}.dict_iplocate_asn;
DROP TABLE IF EXISTS ${database}.ref_bot_networks;
DROP TABLE IF EXISTS ${database}.bot_ja4;
DROP TABLE IF EXISTS ${database}.bot_ip;
DROP TABLE IF EXISTS ${database}.iplocate_asn;
