//! The fields of a record that say something of a network, as the makers of databases name them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::enrich::csv;

/// What a record may have. Others are passed over.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    // MaxMind's, DB-IP's and ip-location-db's.
    autonomous_system_number: Option<Number>,
    #[serde(borrow)]
    autonomous_system_organization: Option<&'a str>,
    #[serde(borrow)]
    country: Option<Code<'a>>,
    #[serde(borrow)]
    registered_country: Option<Code<'a>>,
    // Those of IPinfo, iplocate and ip-location-db.
    asn: Option<Number>,
    country_code: Option<&'a str>,
    as_name: Option<&'a str>,
    as_domain: Option<&'a str>,
    name: Option<&'a str>,
    org: Option<&'a str>,
    domain: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// System, country code, name, organisation and domain; what is missing is none or empty. A network without a country is of
    /// the country in which it is registered.
    pub fn facts(&self) -> (Option<u32>, [&'a str; 4]) {
        let asn = self.autonomous_system_number.or(self.asn).and_then(|number| number.0);
        let codes = [self.country, self.registered_country].map(|country| country.and_then(|country| country.0));
        let first = |texts: &[Option<&'a str>]| texts.iter().copied().flatten().next().unwrap_or_default();
        let country = first(&[self.country_code, codes[0], codes[1]]);
        let name = first(&[self.as_name, self.name]);
        let org = first(&[self.autonomous_system_organization, self.org]);
        (asn, [country, name, org, first(&[self.as_domain, self.domain])])
    }
}

/// The number of a system, written as a number or as text.
#[derive(Clone, Copy, Debug)]
struct Number(Option<u32>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a system")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                let number = u32::try_from(number);
                number.map(|number| Number(Some(number))).map_err(|_| E::custom("it is no number of a system"))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                csv::as_number(text).map(Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The code of a country: a text of two characters, or an object that has it as `iso_code`.
#[derive(Clone, Copy, Debug)]
struct Code<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Code<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Code<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a country")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Code<'de>, E> {
                // Some makers have the name here, and the code elsewhere.
                Ok(Code(Some(text).filter(|text| text.len() == 2)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Code<'de>, A::Error> {
                let mut code = Code(None);
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" => code = Code(Some(map.next_value()?)),
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(code)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
