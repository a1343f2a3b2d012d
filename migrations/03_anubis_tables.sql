-- Anubis: rules that say of a User-Agent, an address, a network or a country which crawler it is and what is done.

-- As the REGEXP_TREE layout wants it: keys and values are bot_name, action, has_ip, rule_id, category.
CREATE TABLE IF NOT EXISTS ${database}.anubis_ua_rules
(
    id UInt64,
    parent_id UInt64 DEFAULT 0,
    regexp String,
    keys Array(String),
    values Array(String)
)
ENGINE = MergeTree
ORDER BY id
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS ${database}.anubis_ip_rules
(
    prefix String,
    bot_name LowCardinality(String),
    action LowCardinality(String),
    rule_id String DEFAULT '',
    category LowCardinality(String) DEFAULT ''
)
ENGINE = ReplacingMergeTree
ORDER BY prefix
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS ${database}.anubis_asn_rules
(
    asn UInt32,
    bot_name LowCardinality(String),
    action LowCardinality(String),
    rule_id String DEFAULT '',
    category LowCardinality(String) DEFAULT ''
)
ENGINE = ReplacingMergeTree
ORDER BY asn
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS ${database}.anubis_country_rules
(
    country_code String,
    bot_name LowCardinality(String),
    action LowCardinality(String),
    rule_id String DEFAULT '',
    category LowCardinality(String) DEFAULT ''
)
ENGINE = ReplacingMergeTree
ORDER BY country_code
SETTINGS non_replicated_deduplication_window = 1000;

-- A REGEXP_TREE without a rule refuses to be asked, so there is always one, which matches nothing.
CREATE DICTIONARY IF NOT EXISTS ${database}.dict_anubis_ua
(
    regexp String,
    bot_name String DEFAULT '',
    action String DEFAULT '',
    has_ip UInt8 DEFAULT 0,
    rule_id String DEFAULT '',
    category String DEFAULT ''
)
PRIMARY KEY regexp
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' QUERY 'SELECT id, parent_id, regexp, keys, values FROM ${database}.anubis_ua_rules UNION ALL SELECT toUInt64(-1), toUInt64(0), \'$.^\', [], []'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(REGEXP_TREE);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_anubis_ip
(
    prefix String,
    bot_name String DEFAULT '',
    action String DEFAULT '',
    rule_id String DEFAULT '',
    category String DEFAULT ''
)
PRIMARY KEY prefix
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'anubis_ip_rules'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(IP_TRIE);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_anubis_asn
(
    asn UInt64,
    bot_name String DEFAULT '',
    action String DEFAULT '',
    rule_id String DEFAULT '',
    category String DEFAULT ''
)
PRIMARY KEY asn
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'anubis_asn_rules'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(HASHED);

CREATE DICTIONARY IF NOT EXISTS ${database}.dict_anubis_country
(
    country_code String,
    bot_name String DEFAULT '',
    action String DEFAULT '',
    rule_id String DEFAULT '',
    category String DEFAULT ''
)
PRIMARY KEY country_code
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'anubis_country_rules'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(COMPLEX_KEY_HASHED);
