//! Functions of addresses and networks.
//!
//! An address is text. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, RFC 4291, 2.5.5.2) is the IPv4 address, in networks
//! too, and no network of IPv6 has an IPv4 address. What is no address, and what is null, gives null. A network or a
//! number of bits that is written as a constant is checked when the expression is planned; one that comes from a column
//! and is none gives null.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::builder::StringBuilder;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;
use crate::cidr::{Network, address};

/// How each is called, and what it gives.
pub(crate) const REFERENCE: [(&str, &str); 5] = [
    ("ip_in(address, '192.0.2.0/24')", "whether the address is in the network"),
    (
        "ip_prefix(address, 24, 64)",
        "the address's network of so many bits, for IPv4 and for IPv6, as text: `192.0.2.0/24`, `2001:db8::/64`",
    ),
    ("ip_version(address)", "4 or 6"),
    (
        "ip_is_private(address)",
        "whether it is in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918) or fc00::/7 (RFC 4193)",
    ),
    ("ip_is_loopback(address)", "whether it is in 127.0.0.0/8 or is ::1"),
];

/// The functions.
pub(crate) fn all() -> Vec<ScalarUDF> {
    [Call::In, Call::Prefix, Call::Version, Call::IsPrivate, Call::IsLoopback]
        .into_iter()
        .map(|call| {
            ScalarUDF::new_from_impl(Function { call, signature: Signature::user_defined(Volatility::Immutable) })
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    In,
    Prefix,
    Version,
    IsPrivate,
    IsLoopback,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    call: Call,
    signature: Signature,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::In => "ip_in",
            Self::Prefix => "ip_prefix",
            Self::Version => "ip_version",
            Self::IsPrivate => "ip_is_private",
            Self::IsLoopback => "ip_is_loopback",
        }
    }

    /// How it is called, for messages.
    fn usage(self) -> &'static str {
        REFERENCE[self as usize].0
    }

    fn arguments(self) -> &'static [DataType] {
        match self {
            Self::In => &[DataType::Utf8, DataType::Utf8],
            Self::Prefix => &[DataType::Utf8, DataType::Int64, DataType::Int64],
            Self::Version | Self::IsPrivate | Self::IsLoopback => &[DataType::Utf8],
        }
    }

    fn result(self) -> DataType {
        match self {
            Self::In | Self::IsPrivate | Self::IsLoopback => DataType::Boolean,
            Self::Prefix => DataType::Utf8,
            Self::Version => DataType::UInt8,
        }
    }

    /// Refuses a constant that is wrong for every row.
    fn check(self, nth: usize, constant: &ScalarValue) -> Result<(), BadArgument> {
        match (self, nth, constant) {
            (Self::In, 1, text) => match text.try_as_str().flatten() {
                Some(text) => Network::parse(text).map(drop),
                None => Ok(()),
            },
            (Self::Prefix, 1 | 2, ScalarValue::Int64(Some(bits))) => {
                let (family, most) = if nth == 1 { ("IPv4", 32) } else { ("IPv6", 128) };
                if (0..=most).contains(bits) {
                    return Ok(());
                }
                let message = format!("a prefix of {family} has 0 to {most} bits, not {bits}");
                Err(BadArgument { message, part: bits.to_string(), help: Some(self.usage().to_owned()) })
            }
            _ => Ok(()),
        }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.call.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.call.result())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        for (nth, constant) in args.scalar_arguments.iter().enumerate() {
            let checked = constant.map_or(Ok(()), |constant| self.call.check(nth, constant));
            checked.map_err(|fault| DataFusionError::External(Box::new(fault)))?;
        }
        Ok(Arc::new(Field::new(self.name(), self.call.result(), true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = self.call.arguments();
        let fits = |(given, wanted): (&DataType, &DataType)| match given {
            DataType::Null => true,
            given if *wanted == DataType::Utf8 => is_text(given),
            given => given.is_integer(),
        };
        if types.len() == wanted.len() && types.iter().zip(wanted).all(fits) {
            return Ok(wanted.to_vec());
        }
        plan_err!("it is called so: {}", self.call.usage())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let Some(addresses) = args.args.first() else { return exec_err!("{} without an address", self.name()) };
        let addresses = Texts::of(addresses)?;
        let addresses = (0..rows).map(|row| addresses.get(row).and_then(address));
        let result: ArrayRef = match (self.call, &args.args[1..]) {
            (Call::In, [networks]) => Arc::new(is_in(addresses, networks)?),
            (Call::Prefix, [v4, v6]) => Arc::new(prefixes(addresses, &Numbers::of(v4)?, &Numbers::of(v6)?)?),
            (Call::Version, []) => {
                Arc::new(addresses.map(|a| a.map(|a| if a.is_ipv4() { 4 } else { 6 })).collect::<UInt8Array>())
            }
            (Call::IsPrivate, []) => Arc::new(addresses.map(|a| a.map(is_private)).collect::<BooleanArray>()),
            (Call::IsLoopback, []) => Arc::new(addresses.map(|a| a.map(|a| a.is_loopback())).collect::<BooleanArray>()),
            _ => return exec_err!("it is called so: {}", self.call.usage()),
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn is_text(ty: &DataType) -> bool {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// Texts of an argument.
enum Texts<'a> {
    Same(Option<&'a str>),
    Each(&'a StringArray),
}

impl<'a> Texts<'a> {
    fn of(value: &'a ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(scalar) => Self::Same(scalar.try_as_str().flatten()),
            ColumnarValue::Array(array) => match array.as_string_opt::<i32>() {
                Some(texts) => Self::Each(texts),
                None => return exec_err!("{} is no text", array.data_type()),
            },
        })
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Same(text) => *text,
            Self::Each(texts) => texts.is_valid(row).then(|| texts.value(row)),
        }
    }
}

/// Whole numbers of an argument.
enum Numbers<'a> {
    Same(Option<i64>),
    Each(&'a Int64Array),
}

impl<'a> Numbers<'a> {
    fn of(value: &'a ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Int64(number)) => Self::Same(*number),
            ColumnarValue::Scalar(_) => Self::Same(None),
            ColumnarValue::Array(array) => match array.as_primitive_opt::<Int64Type>() {
                Some(numbers) => Self::Each(numbers),
                None => return exec_err!("{} is no whole number", array.data_type()),
            },
        })
    }

    fn get(&self, row: usize) -> Option<i64> {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers.is_valid(row).then(|| numbers.value(row)),
        }
    }
}

fn is_in(addresses: impl Iterator<Item = Option<IpAddr>>, networks: &ColumnarValue) -> Result<BooleanArray> {
    let parse = |text: &str| Network::parse(text).ok();
    Ok(match Texts::of(networks)? {
        Texts::Same(text) => {
            let network = text.and_then(parse);
            addresses.map(|address| Some(network.as_ref()?.contains(address?))).collect()
        }
        networks @ Texts::Each(_) => {
            let each = |(row, address): (usize, Option<IpAddr>)| {
                let address = address?;
                Some(parse(networks.get(row)?)?.contains(address))
            };
            addresses.enumerate().map(each).collect()
        }
    })
}

fn prefixes(
    addresses: impl Iterator<Item = Option<IpAddr>>,
    v4: &Numbers<'_>,
    v6: &Numbers<'_>,
) -> Result<StringArray> {
    let mut out = StringBuilder::new();
    for (row, address) in addresses.enumerate() {
        let network = address.and_then(|address| {
            let bits = if address.is_ipv4() { v4.get(row) } else { v6.get(row) };
            Network::of(address, u8::try_from(bits?).ok()?)
        });
        match network {
            Some(network) => {
                write!(out, "{}/{}", network.address(), network.bits)
                    .map_err(|error| DataFusionError::External(Box::new(error)))?;
                out.append_value("");
            }
            None => out.append_null(),
        }
    }
    Ok(out.finish())
}

/// RFC 1918 and RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;

    use super::*;
    use crate::testing;

    fn schema() -> Schema {
        let field = |name: &str, ty| Field::new(name, ty, true);
        Schema::new(vec![field("a", DataType::Utf8), field("n", DataType::Utf8), field("bits", DataType::Int64)])
    }

    /// What an expression gives for one row, as text.
    fn value(sql: &str, address: Option<&str>, network: Option<&str>, bits: Option<i64>) -> String {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![address])),
            Arc::new(StringArray::from(vec![network])),
            Arc::new(Int64Array::from(vec![bits])),
        ];
        let rows = RecordBatch::try_new(Arc::new(schema()), columns).expect("valid");
        testing::value(sql, &rows).expect("valid")
    }

    fn of(sql: &str, address: &str) -> String {
        value(sql, Some(address), None, None)
    }

    /// Why an expression is refused when it is planned.
    fn refused(sql: &str) -> DataFusionError {
        testing::compile(sql, &schema()).expect_err("refused")
    }

    fn argument(error: &DataFusionError) -> &BadArgument {
        match error.find_root() {
            DataFusionError::External(cause) => cause.downcast_ref().expect("an argument"),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_however_it_is_written() {
        for address in ["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"] {
            assert_eq!(of("ip_in(a, '192.0.2.0/24')", address), "true");
            assert_eq!(of("ip_in(a, '::ffff:192.0.2.0/120')", address), "true");
            assert_eq!(of("ip_in(a, '::/0')", address), "false");
            assert_eq!(of("ip_prefix(a, 24, 64)", address), "192.0.2.0/24");
            assert_eq!(of("ip_version(a)", address), "4");
        }
        assert_eq!(of("ip_in(a, '2001:db8::/32')", "2001:DB8:1::9"), "true");
        assert_eq!(of("ip_prefix(a, 24, 64)", "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("ip_prefix(a, 0, 0)", "2001:db8::1"), "::/0");
        assert_eq!(of("ip_version(a)", "::1"), "6");
    }

    #[test]
    fn what_is_no_address_or_no_network_gives_null() {
        for text in ["", "unknown", "192.0.2.256", "192.0.2.7:443", "[::1]", "fe80::1%eth0", " 192.0.2.7", "192.0.2.07"]
        {
            for sql in [
                "ip_in(a, '0.0.0.0/0')",
                "ip_prefix(a, 24, 64)",
                "ip_version(a)",
                "ip_is_private(a)",
                "ip_is_loopback(a)",
            ] {
                assert_eq!(of(sql, text), "null", "{sql} {text}");
            }
        }
        assert_eq!(value("ip_in(a, n)", Some("192.0.2.7"), Some("192.0.2.0/25"), None), "true");
        assert_eq!(value("ip_in(a, n)", Some("192.0.2.7"), Some("192.0.2.0/33"), None), "null");
        assert_eq!(value("ip_in(a, n)", Some("192.0.2.7"), None, None), "null");
        assert_eq!(value("ip_prefix(a, bits, 64)", Some("192.0.2.7"), None, Some(31)), "192.0.2.6/31");
        assert_eq!(value("ip_prefix(a, bits, 64)", Some("192.0.2.7"), None, Some(-1)), "null");
        assert_eq!(value("ip_prefix(a, bits, 64)", Some("2001:db8::1"), None, None), "2001:db8::/64");
        assert_eq!(of("ip_in(a, null)", "192.0.2.7"), "null");
    }

    #[test]
    fn private_and_loopback_are_those_of_the_standards() {
        for (address, private, loopback) in [
            ("10.255.0.1", "true", "false"),
            ("172.31.255.255", "true", "false"),
            ("172.32.0.0", "false", "false"),
            ("192.168.0.1", "true", "false"),
            ("::ffff:192.168.0.1", "true", "false"),
            ("100.64.0.1", "false", "false"),
            ("fdff::1", "true", "false"),
            ("fe80::1", "false", "false"),
            ("127.8.0.1", "false", "true"),
            ("::1", "false", "true"),
            ("::2", "false", "false"),
        ] {
            assert_eq!(of("ip_is_private(a)", address), private, "{address}");
            assert_eq!(of("ip_is_loopback(a)", address), loopback, "{address}");
        }
    }

    #[test]
    fn a_constant_that_is_wrong_is_refused_at_its_place() {
        for (sql, part, message) in [
            ("ip_in(a, '192.0.2.0/33')", "192.0.2.0/33", "0 to 32 bits"),
            ("not ip_in(a, '192.0.2.1/24') or a is null", "192.0.2.1/24", "bits behind its prefix"),
            ("ip_in(a, '192.0.2.1')", "192.0.2.1", "needs a prefix length"),
            ("ip_in(a, '192.0.2/24')", "192.0.2/24", "is not a network"),
            ("ip_in(a, '::ffff:192.0.2.0/90')", "::ffff:192.0.2.0/90", "bits behind its prefix"),
            ("ip_in(a, '192.0.2.0/+8')", "192.0.2.0/+8", "is not a network"),
            ("ip_prefix(a, 33, 64)", "33", "0 to 32 bits"),
            ("ip_prefix(a, 24, 129)", "129", "0 to 128 bits"),
        ] {
            let error = refused(sql);
            let fault = argument(&error);
            assert_eq!(fault.part, part, "{fault:?}");
            assert!(fault.message.contains(message), "{fault:?}");
        }
        assert_eq!(argument(&refused("ip_in(a, '10.1.0.0/8')")).help.as_deref(), Some("the network is 10.0.0.0/8"));
        for sql in [
            "ip_in(a)",
            "ip_in(bits, '10.0.0.0/8')",
            "ip_prefix(a, 24)",
            "ip_version(a, a)",
            "ip_prefix(a, '24', '64')",
        ] {
            let error = refused(sql).to_string();
            assert!(error.contains("it is called so"), "{error}");
        }
    }
}
