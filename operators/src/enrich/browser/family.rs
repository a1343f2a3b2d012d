//! Which browser a User-Agent names, and which TLS it must have then.

/// The families that a User-Agent may name; anything else is `other`.
const OTHER: &str = "other";

/// A family that a User-Agent names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its name.
    pub family: &'static str,
    /// Another family whose TLS it has, because it is built on that.
    pub base: Option<&'static str>,
}

/// The first row of which a User-Agent contains a text counts; case counts too. Browsers name those before them, so the newest
/// come first. On iOS all have the system's TLS, which is Safari's.
const RULES: [(&[&str], &str, Option<&str>); 11] = [
    (&["EdgiOS/"], "Edge", Some("Safari")),
    (&["Edg/", "EdgA/", "Edge/"], "Edge", Some("Chrome")),
    (&["SamsungBrowser/"], "Samsung Internet", Some("Chrome")),
    (&["OPiOS/", "OPT/"], "Opera", Some("Safari")),
    (&["OPR/", "OPX/", "Opera/"], "Opera", Some("Chrome")),
    (&["FxiOS/"], "Firefox", Some("Safari")),
    (&["CriOS/"], "Chrome", Some("Safari")),
    (&["SeaMonkey/", "Seamonkey/", "PaleMoon/"], OTHER, None),
    (&["Firefox/"], "Firefox", None),
    (&["Chrome/", "Chromium/"], "Chrome", None),
    // The browser of old Androids calls itself Safari.
    (&["Android"], OTHER, None),
];

impl Claim {
    /// What a User-Agent names.
    pub fn of(agent: &str) -> Self {
        let rule = RULES.iter().find(|(texts, ..)| texts.iter().any(|text| agent.contains(text)));
        match rule {
            Some((_, family, base)) => Self { family, base: *base },
            None if agent.contains("Version/") && agent.contains("Safari/") => Self { family: "Safari", base: None },
            None => Self { family: OTHER, base: None },
        }
    }

    /// Whether a browser of one of these families may say so. `None` if no family is named.
    pub fn matches<'a>(self, mut families: impl Iterator<Item = &'a str>) -> Option<bool> {
        let agrees = |family: &str| {
            let family = known(family);
            family.eq_ignore_ascii_case(self.family) || self.base.is_some_and(|base| family.eq_ignore_ascii_case(base))
        };
        (self.family != OTHER).then(|| families.any(agrees))
    }
}

/// The family by its usual name: some have several, and some browsers name another in their User-Agent.
fn known(family: &str) -> &str {
    const NAMES: [(&str, &str); 6] = [
        ("Chromium", "Chrome"),
        ("Brave", "Chrome"),
        ("Microsoft Edge", "Edge"),
        ("Mobile Safari", "Safari"),
        ("Tor", "Firefox"),
        ("Tor Browser", "Firefox"),
    ];
    NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(family)).map_or(family, |(_, usual)| usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_user_agents() {
        let windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";
        let android = "Mozilla/5.0 (Linux; Android 15; SM-S931B) AppleWebKit/537.36 (KHTML, like Gecko)";
        let agents = [
            (format!("{windows} Chrome/156.0.0.0 Safari/537.36"), "Chrome", None),
            (format!("{windows} HeadlessChrome/156.0.0.0 Safari/537.36"), "Chrome", None),
            (format!("{windows} Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0"), "Edge", Some("Chrome")),
            (format!("{windows} Chrome/156.0.0.0 Safari/537.36 OPR/130.0.0.0"), "Opera", Some("Chrome")),
            (format!("{android} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"), "Samsung Internet", Some("Chrome")),
            (format!("{android} Chrome/156.0.0.0 Mobile Safari/537.36"), "Chrome", None),
            ("Mozilla/5.0 (Linux; U; Android 4.0.3; de-de) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30".to_owned(), "other", None),
            (format!("{phone} Version/18.5 Mobile/15E148 Safari/604.1"), "Safari", None),
            (format!("{phone} CriOS/156.0.0.0 Mobile/15E148 Safari/604.1"), "Chrome", Some("Safari")),
            (format!("{phone} FxiOS/140.0 Mobile/15E148 Safari/604.1"), "Firefox", Some("Safari")),
            (format!("{phone} Version/18.0 EdgiOS/156.0 Mobile/15E148 Safari/604.1"), "Edge", Some("Safari")),
            (format!("{phone} Version/18.0 Mobile/15E148 Safari/604.1 OPT/5.0"), "Opera", Some("Safari")),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(), "Firefox", None),
            ("curl/8.14.1".to_owned(), "other", None),
            (String::new(), "other", None),
        ];
        for (agent, family, base) in agents {
            assert_eq!(Claim::of(&agent), Claim { family, base }, "{agent}");
        }
    }

    #[test]
    fn families_agree_by_name_or_by_what_they_are_built_on() {
        let matches = |agent: &str, families: &str| Claim::of(agent).matches(families.split('|'));
        assert_eq!(matches("Chrome/1", "Firefox|chrome"), Some(true));
        assert_eq!(matches("Chrome/1", "Edge"), Some(false));
        assert_eq!(matches("Chrome/1 Edg/1", "Chromium"), Some(true));
        assert_eq!(matches("Chrome/1 Edg/1", "Firefox"), Some(false));
        assert_eq!((matches("CriOS/1", "Safari"), matches("CriOS/1", "Chrome")), (Some(true), Some(true)));
        assert_eq!((matches("Firefox/1", "Tor Browser"), matches("Firefox/1", "Safari")), (Some(true), Some(false)));
        assert_eq!(matches("curl/8", "Chrome"), None);
    }
}
