//! `ja4-engine init`: what a server's configuration needs, and a pipeline that reads what it then logs.
//!
//! Both are the files that the tests put into real servers, word for word.

use clap::{Args, FromArgMatches, ValueEnum};
use command_line::{Exit, Extra, print};

const DOCUMENT: &str = include_str!("../docs/servers.md");
const FIRST_LOG: &str = include_str!("../pipelines/first_log.yaml");
const HAPROXY: &str = include_str!("../pipelines/haproxy.yaml");

/// Print what a web server's configuration needs, so that it logs what can be joined
///
/// docs/servers.md says where it goes and what else there is to do.
#[derive(Debug, Args)]
struct Options {
    /// The server
    #[arg(value_enum)]
    server: Server,
    /// Print the pipeline that reads the log instead. Put it beside features/ and rules/ of the pipelines that came with
    /// the engine
    #[arg(long)]
    pipeline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Server {
    /// Apache
    Apache,
    /// nginx
    Nginx,
    /// HAProxy
    Haproxy,
    /// Caddy
    Caddy,
    /// Envoy
    Envoy,
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    Extra {
        command: Options::augment_args(clap::Command::new("init")),
        run: |matches, _| Options::from_arg_matches(matches).map_or(Exit::Refused, |options| print(&text(&options))),
    }
}

fn text(options: &Options) -> String {
    if options.pipeline { pipeline(options.server) } else { block(options.server).to_owned() }
}

/// The server's block in the document.
fn block(server: Server) -> &'static str {
    let fence = match server {
        Server::Apache => "```apache\n",
        Server::Nginx => "```nginx\n",
        Server::Haproxy => "```haproxy\n",
        Server::Caddy => "```caddyfile\n",
        Server::Envoy => "```yaml\n",
    };
    let rest = DOCUMENT.split_once(fence).map_or("", |(_, rest)| rest);
    rest.split_once("```\n").map_or("", |(block, _)| block)
}

fn pipeline(server: Server) -> String {
    let reading = |log: &str, format: &str| {
        let pipeline = FIRST_LOG.replace("/var/log/apache2/ja4.log", log);
        pipeline.replace("format: reqin_log", &format!("format: {format}"))
    };
    match server {
        Server::Apache => FIRST_LOG.to_owned(),
        Server::Nginx => reading("/var/log/nginx/ja4.log", "reqin_log"),
        Server::Caddy => reading("/var/log/caddy/ja4.log", "caddy"),
        Server::Envoy => reading("/var/log/envoy/ja4.log", "envoy_json"),
        Server::Haproxy => HAPROXY.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_block_and_a_pipeline_that_reads_it() {
        for (server, in_block, in_pipeline) in [
            (Server::Apache, "LogFormat '{", "/var/log/apache2/ja4.log"),
            (Server::Nginx, "log_format ja4 escape=json", "/var/log/nginx/ja4.log"),
            (Server::Haproxy, "log-format \"%ci:%cp", "format: haproxy"),
            (Server::Caddy, "format json", "format: caddy"),
            (Server::Envoy, "json_format:", "format: envoy_json"),
        ] {
            let block = text(&Options { server, pipeline: false });
            assert!(block.starts_with("# /etc/") && block.contains(in_block) && !block.contains("```"), "{block}");
            assert!(text(&Options { server, pipeline: true }).contains(in_pipeline), "{server:?}");
        }
    }
}
