//! The public policies of Anubis, if the project has them: `pipelines/reference/anubis`.

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/reference/anubis/data");

/// A policy of the folder, over the columns of mod_reqin_log and further ones. `None` if there is no folder.
fn public(policy: &str, columns: &[&str]) -> Option<Loaded> {
    if !Path::new(FOLDER).is_dir() {
        eprintln!("skipped: there is no {FOLDER}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("all.yaml"), ALL).expect("written");
    let policy = policy.replace("FOLDER", FOLDER);
    Some(
        load_in(folder.path(), &policy, &format!(", data: '{FOLDER}'"), columns)
            .unwrap_or_else(|faults| panic!("{faults}")),
    )
}

/// Every file that has rules, once, and the default policy's own rules.
const ALL: &str = "bots:
- import: (data)/apps/*.y*ml
- import: (data)/bots/[!_]*.yaml
- import: (data)/bots/irc-bots/*.yaml
- import: (data)/clients/*.yaml
- import: (data)/clients/small-internet-browsers/[!_]*.yaml
- import: (data)/common/*.yaml
- import: (data)/crawlers/[!_]*.yaml
- import: (data)/services/*.yaml
";

/// The names of the rules that are not evaluated, with the reasons.
fn unknown(loaded: &Loaded) -> Vec<(String, String)> {
    let parts = loaded.warnings.iter().filter_map(|warning| warning.split_once(" is not evaluated: "));
    parts.map(|(name, why)| (name.split('`').nth(1).expect("a name").to_owned(), why.to_owned())).collect()
}

#[test]
fn every_rule_of_the_public_policies_is_evaluated_or_listed() {
    let Some(loaded) = public("all.yaml", &[]) else { return };
    assert_eq!(loaded.judge.rules.len(), 84, "90 rules, but for the three that two policies have of their own");
    let unknown = unknown(&loaded);
    let evaluated = (0..84).filter(|rule| loaded.judge.matchers.evaluated.contains(*rule)).count();
    assert_eq!((evaluated, unknown.len()), (71, 13), "{unknown:#?}");
    let because = |part: &str| {
        let mut names: Vec<&str> =
            unknown.iter().filter(|(_, why)| why.contains(part)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(because("asks a name server"), ["telegrambot", "vkbot", "yandexbot"]);
    let without_column = [
        "allow-docker-client",
        "allow-docker-distribution-api-client",
        "allow-git-clients",
        "archlinux-phrik",
        "cloudflare-kitesurf",
        "cloudflare-workers",
        "gentoo-chat",
        "reduce-weight-dillo",
        "upgrade-insecure-requests",
        "x-firefox-ai",
    ];
    assert_eq!(because("there is no column `header_"), without_column);
}

#[test]
fn with_columns_for_its_headers_only_name_servers_are_missing() {
    let columns = [
        "header_baggage",
        "header_cache_control",
        "header_cdn_loop",
        "header_cf_ew_via",
        "header_cf_ray",
        "header_cf_visitor",
        "header_cf_worker",
        "header_dnt",
        "header_docker_distribution_api_version",
        "header_pragma",
        "header_upgrade_insecure_requests",
        "header_x_firefox_ai",
        "header_x_http_protocol",
        "header_x_http_version",
    ];
    let Some(loaded) = public("all.yaml", &columns) else { return };
    let names: Vec<String> = unknown(&loaded).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["telegrambot", "vkbot", "yandexbot"]);
    let git = [
        ("method", "GET"),
        ("path", "/r.git/info/refs"),
        ("header_user_agent", "git/2.47.1"),
        ("header_accept", "*/*"),
        ("header_cache_control", "no-cache"),
        ("header_pragma", "no-cache"),
        ("header_accept_encoding", "deflate, gzip"),
    ];
    assert!(loaded.label(&git).starts_with("allow-git-clients ALLOW clients "), "{}", loaded.label(&git));
}

#[test]
fn the_default_policy_says_what_it_says_in_anubis() {
    let Some(loaded) = public("FOLDER/botPolicies.yaml", &[]) else { return };
    assert_eq!(loaded.judge.rules.len(), 40);
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    let googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let opera_mini = "Opera/9.80 (Android; Opera Mini/36.2/119.132; U; en) Presto/2.12.423 Version/12.16";
    for (agent, address, path, more, expected) in [
        // An IP range of crawlers/googlebot.yaml, and without it a browser of weight 10.
        (googlebot, "66.249.66.1", "/", None, "googlebot ALLOW crawlers"),
        (googlebot, "192.0.2.1", "/", None, "- CHALLENGE - - 10"),
        (
            "Mozilla/5.0 (compatible; GPTBot/1.1; +https://openai.com/gptbot)",
            "192.0.2.1",
            "/",
            None,
            "ai-crawlers-training DENY crawlers",
        ),
        ("Mozilla/5.0 (compatible; Bytespider)", "192.0.2.1", "/robots.txt", None, "ai-catchall DENY bots"),
        ("Mozilla/5.0 HeadlessChrome/130.0.0.0", "192.0.2.1", "/", None, "headless-chrome DENY bots"),
        ("curl/8.14.1", "192.0.2.1", "/", None, "- - - - 0"),
        ("", "192.0.2.1", "/", None, "- - - - 0"),
        (firefox, "192.0.2.1", "/", None, "- CHALLENGE - - 10"),
        (firefox, "192.0.2.1", "/", Some(("src_country_code", "BR")), "- CHALLENGE - - 20"),
        (firefox, "192.0.2.1", "/", Some(("src_asn", "13335")), "- CHALLENGE - - 20"),
        ("curl/8.14.1", "192.0.2.1", "/", Some(("src_asn", "45102")), "- CHALLENGE - - 10"),
        (firefox, "192.0.2.1", "/.well-known/acme-challenge/x", None, "well-known ALLOW common"),
        ("curl/8.14.1", "192.0.2.1", "/robots.txt", None, "robots-txt ALLOW common"),
        ("curl/8.14.1", "192.0.2.1", "/sitemap.xml", None, "sitemap ALLOW common"),
        (opera_mini, "192.0.2.1", "/", None, "- CHALLENGE - - 30"),
        ("Custom-AsyncHttpClient", "192.0.2.1", "/", None, "- CHALLENGE - - 10"),
        ("CCBot/2.0", "192.0.2.1", "/", None, "- - - - 0"),
        (firefox, "207.241.224.9", "/", None, "internet-archive ALLOW crawlers"),
        (firefox, "46.224.73.201", "/", None, "lyrenth-ai-web-index-ips DENY bots"),
    ] {
        let mut request = vec![("method", "GET"), ("path", path), ("src_ip", address), ("header_user_agent", agent)];
        request.extend(more);
        let label = loaded.label(&request);
        assert!(label.starts_with(expected), "{agent} {address} {path}: {label}");
    }
}
