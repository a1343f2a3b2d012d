-- Networks by address, and lists of known bots. The tables are filled by `ja4-engine migrate load` or by INSERT; the
-- dictionaries read the tables, so that nobody needs access to the server's user_files.

-- iplocate-ip-to-asn.csv
CREATE TABLE IF NOT EXISTS ${database}.iplocate_asn
(
    network String,
    asn UInt32,
    country_code LowCardinality(String),
    name String,
    org String,
    domain String
)
ENGINE = MergeTree
ORDER BY network
SETTINGS non_replicated_deduplication_window = 1000;

-- bot_ip.csv
CREATE TABLE IF NOT EXISTS ${database}.bot_ip
(
    prefix String,
    bot_name LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY prefix
SETTINGS non_replicated_deduplication_window = 1000;

-- bot_ja4.csv
CREATE TABLE IF NOT EXISTS ${database}.bot_ja4
(
    ja4 String,
    bot_name LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY ja4
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS ${database}.ref_bot_networks
(
    network String,
    bot_name LowCardinality(String),
    is_legitimate UInt8 DEFAULT 0,
    last_update DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree(last_update)
ORDER BY (network, bot_name)
SETTINGS non_replicated_deduplication_window = 1000;

-- By longest prefix; IPv4 is looked up as ::ffff:a.b.c.d.
CREATE DICTIONARY IF NOT EXISTS ${database}.dict_iplocate_asn
(
    network String,
    asn UInt32 DEFAULT 0,
    country_code String DEFAULT '',
    name String DEFAULT '',
    org String DEFAULT '',
    domain String DEFAULT ''
)
PRIMARY KEY network
SOURCE(CLICKHOUSE(USER '${dictionary_user}' PASSWORD '${dictionary_password}' DB '${database}' TABLE 'iplocate_asn'))
LIFETIME(MIN 0 MAX 300)
LAYOUT(IP_TRIE);
