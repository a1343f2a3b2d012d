use super::*;

fn set(config: &mut ServerConfig, directive: &str, value: &str) -> Result<Option<String>, String> {
    config.set(directive, value, |path| Path::new("/root").join(path))
}

fn config(lines: &[(&str, &str)]) -> ServerConfig {
    let mut config = ServerConfig::default();
    for (directive, value) in lines {
        assert_eq!(set(&mut config, directive, value), Ok(None), "{directive} {value}");
    }
    config
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = config(&[("JsonSockLogEnabled", "on"), ("JsonSockLogSocket", "http.socket")]).settings();
    let settings = settings.expect("valid").expect("enabled");
    assert_eq!(settings.target.socket, Path::new("/root/http.socket"));
    assert_eq!(settings.target.reconnect_interval, Duration::from_secs(10));
    assert_eq!(settings.target.error_report_interval, Duration::from_secs(10));
    assert_eq!(
        settings.limits,
        Limits { headers: HEADERS.map(str::to_owned).to_vec(), max_headers: 25, max_header_value_len: 256 }
    );
    assert_eq!(settings.level, Level::Warning);
    assert_eq!(ServerConfig::default().settings(), Ok(None));
    assert!(config(&[("JsonSockLogEnabled", "On")]).settings().expect_err("no socket").contains("JsonSockLogSocket"));
}

#[test]
fn a_value_that_cannot_be_is_refused_with_what_can() {
    for (directive, value, says) in [
        ("JsonSockLogEnabled", "yes", "takes On or Off, not `yes`"),
        ("JsonSockLogMaxHeaders", "101", "takes a whole number from 0 to 100, not `101`"),
        ("JsonSockLogMaxHeaders", "-1", "takes a whole number from 0 to 100, not `-1`"),
        ("JsonSockLogMaxHeaderValueLen", "0", "takes a whole number from 1 to 8192, not `0`"),
        ("JsonSockLogReconnectInterval", "10s", "takes a number of seconds from 0 to 86400, not `10s`"),
        ("JsonSockLogErrorReportInterval", "86401", "takes a number of seconds from 0 to 86400, not `86401`"),
        ("JsonSockLogLevel", "loud", "takes DEBUG, INFO, WARNING, ERROR or EMERG, not `loud`"),
        ("JsonSockLogHeaders", "User Agent", "`User Agent` is no name of a header of at most 100 bytes"),
        ("JsonSockLogHeaders", "", "`` is no name of a header of at most 100 bytes"),
    ] {
        assert_eq!(set(&mut ServerConfig::default(), directive, value), Err(says.to_owned()));
    }
    let long = format!("/{}", "a".repeat(107));
    let refused = set(&mut ServerConfig::default(), "JsonSockLogSocket", &long).expect_err("too long");
    assert!(refused.starts_with("takes a path of 1 to 107 bytes, not one of 108"), "{refused}");
}

#[test]
fn every_directive_is_known() {
    for directive in &DIRECTIVES {
        let name = directive.name.to_str().expect("ASCII");
        let refused = set(&mut ServerConfig::default(), name, "\u{1}");
        assert_ne!(refused, Err("is no directive of mod_reqin_log".to_owned()), "{name}");
    }
}

#[test]
fn headers_are_listed_once_in_the_engines_spelling_and_secrets_never() {
    let mut config = config(&[
        ("JsonSockLogHeaders", "user-agent"),
        ("JsonSockLogHeaders", "X-Mine"),
        ("JsonSockLogHeaders", "USER-AGENT"),
        ("JsonSockLogEnabled", "On"),
        ("JsonSockLogSocket", "/s"),
    ]);
    for secret in ["cookie", "Authorization", "PROXY-AUTHORIZATION"] {
        let said = set(&mut config, "JsonSockLogHeaders", secret).expect("no reason to refuse to start");
        assert!(said.expect("a warning").contains("never logged"));
    }
    assert_eq!(config.settings().expect("valid").expect("enabled").limits.headers, ["User-Agent", "X-Mine"]);
}

#[test]
fn a_host_takes_from_the_server_what_it_does_not_say() {
    let server = config(&[
        ("JsonSockLogEnabled", "On"),
        ("JsonSockLogSocket", "/a"),
        ("JsonSockLogHeaders", "Accept"),
        ("JsonSockLogMaxHeaders", "3"),
        ("JsonSockLogLevel", "debug"),
    ]);
    let host = config(&[("JsonSockLogHeaders", "Referer"), ("JsonSockLogMaxHeaderValueLen", "7")]);
    let settings = server.merged(&host).settings().expect("valid").expect("enabled");
    assert_eq!(settings.target.socket, Path::new("/a"));
    let headers = vec!["Referer".to_owned()];
    assert_eq!(settings.limits, Limits { headers, max_headers: 3, max_header_value_len: 7 });
    assert_eq!(settings.level, Level::Debug);
    assert_eq!(server.merged(&config(&[("JsonSockLogEnabled", "Off")])).settings(), Ok(None));
}

#[test]
fn levels_are_ordered_by_importance() {
    assert!(Level::Emerg < Level::Error && Level::Error < Level::Warning && Level::Info < Level::Debug);
}
