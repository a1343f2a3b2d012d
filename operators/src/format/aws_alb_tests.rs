//! The examples of AWS' documentation.

use super::super::text::tests::{check, refused};
use super::*;

const HTTPS: &str = r#"https 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57 "GET https://www.example.com:443/a?b HTTP/1.1" "curl/7.46.0" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "arn:aws:acm:us-east-2:123456789012:certificate/12345678-1234-1234-1234-123456789012" 1 2018-07-02T22:22:48.364000Z "authenticate,forward" "-" "-" "10.0.0.1:80" "200" "-" "-" TID_1234abcd5678ef90"#;

#[test]
fn the_examples_of_its_documentation() {
    let format = (FORMAT.format)(Unit::S);
    check(
        &format,
        HTTPS,
        &[
            ("begin_time", "2018-07-02T22:22:48.364Z"),
            ("time", "2018-07-02T22:23:00.186Z"),
            ("duration_ms", "11822"),
            ("src_ip", "192.168.131.39"),
            ("src_port", "2817"),
            ("type", "https"),
            ("method", "GET"),
            ("scheme", "https"),
            ("host", "www.example.com"),
            ("path", "/a"),
            ("query", "b"),
            ("status_code", "200"),
            ("response_size", "57"),
            ("header_user_agent", "curl/7.46.0"),
            ("server_tls_version", "TLSv1.2"),
            ("server_tls_cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
            ("server_tls_sni", "www.example.com"),
            ("request_processing_time", "0.086"),
        ],
    );
    let ended = HTTPS
        .replace("10.0.0.1:80 0.086 0.048 0.037 200 200", "- -1 -1 -1 502 -")
        .replace("192.168.131.39", "2001:db8::5")
        .replace("curl/7.46.0", r"a \x22b\x22 c");
    check(
        &format,
        &ended,
        &[("status_code", "502"), ("request_processing_time", "null"), ("target", "null"), ("src_ip", "2001:db8::5")],
    );
    check(&format, &ended, &[("header_user_agent", "a \"b\" c"), ("target_status_code", "null")]);
    refused(&format, &HTTPS[..HTTPS.len() / 2], "not a line of an Application Load Balancer");
}
