//! Reference lists from CSV files. A list is replaced as a whole, at one moment, or not at all.

use std::path::Path;

use crate::run::{Answer, Runner};
use crate::server::{execute, rows};
use crate::sql::identifier;

/// File, table, and the dictionary that reads it.
const LISTS: [(&str, &str, &str); 5] = [
    ("iplocate-ip-to-asn.csv", "iplocate_asn", "dict_iplocate_asn"),
    ("bot_ip.csv", "bot_ip", "dict_bot_ip"),
    ("bot_ja4.csv", "bot_ja4", "dict_bot_ja4"),
    ("asn_reputation.csv", "asn_reputation", "dict_asn_reputation"),
    ("browser_ja4.csv", "browser_ja4", "dict_browser_ja4"),
];

/// Bytes that are sent at a time.
const CHUNK: usize = 256 * 1024;

/// Loads every list of the folder; the first line of a file names its columns.
pub(crate) async fn load(runner: &Runner, folder: &Path) -> Result<(), Answer> {
    let mut loaded = 0;
    for (file, table, dictionary) in LISTS {
        let path = folder.join(file);
        if !path.exists() {
            say!("{file} is not there: {table} stays as it is");
            continue;
        }
        let text = std::fs::read(&path)
            .map_err(|error| Answer::Refused(format!("{} cannot be read: {error}", path.display())))?;
        let database = identifier(runner.database());
        let (table, next) = (format!("{database}.{table}"), format!("{database}.{table}_next"));
        execute(&runner.client, &format!("DROP TABLE IF EXISTS {next}")).await?;
        execute(&runner.client, &format!("CREATE TABLE {next} AS {table}")).await?;
        // A column that the table does not have is a mistake, not something to leave out.
        let mut insert = runner
            .client
            .insert_formatted_with(format!("INSERT INTO {next} FORMAT CSVWithNames"))
            .with_setting("input_format_skip_unknown_fields", "0")
            .with_setting("wait_end_of_query", "1");
        for chunk in text.chunks(CHUNK) {
            let sent = insert.send(chunk.to_vec().into()).await;
            sent.map_err(|error| {
                Answer::Failed(format!("{file}: {}", crate::server::ServerError::from(error).message))
            })?;
        }
        let ended = insert.end().await;
        ended
            .map_err(|error| Answer::Failed(format!("{file}: {}", crate::server::ServerError::from(error).message)))?;
        execute(&runner.client, &format!("EXCHANGE TABLES {table} AND {next}")).await?;
        execute(&runner.client, &format!("DROP TABLE {next}")).await?;
        execute(&runner.client, &format!("SYSTEM RELOAD DICTIONARY {database}.{dictionary}")).await?;
        let count = rows(&runner.client, &format!("SELECT count() FROM {table}")).await?;
        say!("{file}: {} rows", count.first().and_then(|row| row.first()).map_or("0", String::as_str));
        loaded += 1;
    }
    if loaded == 0 {
        return Err(Answer::Refused(format!("{} has none of the lists", folder.display())));
    }
    Ok(())
}
