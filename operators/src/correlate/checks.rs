//! What is checked of the inputs and options before a run. All that is wrong is reported, not only the first.

use std::net::IpAddr;

use arrow::datatypes::{DataType, Schema};
use engine::batch::{SEQ, TIME, time_type};
use engine::contract::PlanContext;
use engine::spec::{Diagnostic, Located};
use ipnet::IpNet;

use super::{KeyColumns, Options, of_hello};

/// The columns of both inputs, and the options.
pub(super) struct Checks<'a> {
    pub hello: &'a Schema,
    pub request: &'a Schema,
    pub options: &'a Options,
}

impl Checks<'_> {
    /// Reports everything that is wrong. If nothing is, the addresses and networks whose rows are dropped.
    pub fn run(&self, context: &mut PlanContext<'_>) -> Option<Vec<IpNet>> {
        let mut complete = true;
        complete &= self.has_columns(0, self.hello, context);
        complete &= self.has_columns(1, self.request, context);
        complete &= self.are_not_swapped(context);
        complete &= self.agree_on_types(context);
        complete &= self.has_bounds(context);
        complete &= self.has_sensor(0, self.hello, context);
        complete &= self.has_sensor(1, self.request, context);
        let excluded = networks(&self.options.exclude_source_ips, context);
        excluded.filter(|_| complete)
    }

    /// Whether an input has the order of a stream and what identifies a connection.
    fn has_columns(&self, input: usize, schema: &Schema, context: &mut PlanContext<'_>) -> bool {
        let mut columns = vec![
            (TIME, time_type()),
            (SEQ, DataType::UInt64),
            ("src_ip", DataType::Utf8),
            ("src_port", DataType::UInt16),
        ];
        if self.options.key == KeyColumns::Connection {
            columns.extend([("dst_ip", DataType::Utf8), ("dst_port", DataType::UInt16)]);
        }
        let span = context.input_span(input);
        let mut complete = true;
        for (name, ty) in columns {
            let Some(at) = context.column(schema, name, span) else {
                complete = false;
                continue;
            };
            let found = schema.field(at).data_type();
            if *found != ty {
                let fault = Diagnostic::new(span, format!("the column `{name}` must be {ty}, but is {found}"));
                let cast = format!("{{ name: {name}, expr: \"arrow_cast({name}, '{ty}')\" }}");
                context.report(fault.help(format!("cast it in a node before: kind: derive, columns: [{cast}]")));
                complete = false;
            }
        }
        complete
    }

    /// Whether fingerprints are not in the input for requests alone.
    fn are_not_swapped(&self, context: &mut PlanContext<'_>) -> bool {
        let has = |schema: &Schema, column: &str| schema.index_of(column).is_ok();
        let swapped = has(self.request, "ja4") && !has(self.hello, "ja4");
        if swapped {
            context.error(
                context.input_span(0),
                "the inputs look swapped: `request` has the column `ja4`, `hello` has not",
            );
        }
        !swapped
    }

    /// Whether what both inputs have is of one type: it becomes one column.
    fn agree_on_types(&self, context: &mut PlanContext<'_>) -> bool {
        let mut complete = true;
        for field in self.request.fields() {
            if let Some(other) = of_hello(self.hello, field.name()).map(|at| self.hello.field(at))
                && other.data_type() != field.data_type()
            {
                let message = format!(
                    "both inputs have a column `{}`, but of type {} and {}",
                    field.name(),
                    other.data_type(),
                    field.data_type()
                );
                context.error(context.span, message);
                complete = false;
            }
        }
        complete
    }

    /// Whether any row may wait.
    fn has_bounds(&self, context: &mut PlanContext<'_>) -> bool {
        let nothing = self.options.max_hellos == 0 || self.options.max_requests == 0;
        if nothing {
            context.error(context.span, "a bound of 0 rows leaves nothing to correlate");
        }
        !nothing
    }

    /// Whether an input has the sensor, if that is part of the key.
    fn has_sensor(&self, input: usize, schema: &Schema, context: &mut PlanContext<'_>) -> bool {
        let has = schema.field_with_name("sensor_id").is_ok_and(|field| *field.data_type() == DataType::Utf8);
        if self.options.match_sensor && !has {
            let message = "`match_sensor` needs the column `sensor_id` in both inputs, as text";
            context.error(context.input_span(input), message);
            return false;
        }
        true
    }
}

/// Addresses and networks, if each text is one.
fn networks(texts: &[Located<String>], context: &mut PlanContext<'_>) -> Option<Vec<IpNet>> {
    let mut found = Vec::new();
    for text in texts {
        match network(&text.value) {
            Some(network) => found.push(network),
            None => {
                let message = format!("`{}` is no address or network such as 192.0.2.0/24", text.value);
                context.error(text.span, message);
            }
        }
    }
    (found.len() == texts.len()).then_some(found)
}

/// An address or a network.
fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
