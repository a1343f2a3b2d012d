//! Where a request's parts stand in a row.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::{DataType, SchemaRef};
use engine::contract::PlanContext;
use engine::spec::Located;

use super::lower::{Column, Part, Row, canonical};

/// What the name of a header's column begins with.
const HEADER: &str = "header_";

/// The columns of an input.
pub(super) struct Columns {
    schema: SchemaRef,
    /// Of each part, in the order of [`Part`].
    parts: Vec<Result<Column, String>>,
    /// Headers whose columns are named in options, by the names that Go gives them.
    headers: HashMap<String, Column>,
}

/// Each part with the column that it has by default.
const DEFAULTS: [(Part, &str); 7] = [
    (Part::Method, "method"),
    (Part::Path, "path"),
    (Part::Query, "query"),
    (Part::Host, "host"),
    (Part::Address, "src_ip"),
    (Part::Asn, "src_asn"),
    (Part::Country, "src_country_code"),
];

impl Columns {
    /// Columns of the input: those that options name, which must be there, and by default those that are there.
    pub fn new(
        named: [Option<Located<String>>; 7],
        headers: BTreeMap<String, Located<String>>,
        context: &mut PlanContext<'_>,
    ) -> Self {
        let schema = context.input(0).schema;
        let mut columns = Self { schema, parts: Vec::with_capacity(DEFAULTS.len()), headers: HashMap::new() };
        for ((part, default), named) in DEFAULTS.into_iter().zip(named) {
            let wanted = if part == Part::Asn { DataType::UInt32 } else { DataType::Utf8 };
            let found = match &named {
                Some(named) => columns.named(named, &wanted, context),
                None => columns.find(default, &wanted),
            };
            columns.parts.push(found);
        }
        for (header, column) in headers {
            let found = columns.named(&column, &DataType::Utf8, context);
            let name = canonical(&header);
            if let Ok(found) = found
                && columns.headers.insert(name.clone(), found).is_some()
            {
                context.error(column.span, format!("the header `{name}` has another column already"));
            }
        }
        columns
    }

    /// A column that an option names.
    fn named(
        &self,
        name: &Located<String>,
        wanted: &DataType,
        context: &mut PlanContext<'_>,
    ) -> Result<Column, String> {
        let Some(at) = context.column(&self.schema, &name.value, name.span) else { return Err(String::new()) };
        let found = self.find(&name.value, wanted);
        if found.is_err() {
            let message = format!("`{}` is {}, and not {wanted}", name.value, self.schema.field(at).data_type());
            context.error(name.span, message);
        }
        found
    }

    /// A column of this name and type.
    fn find(&self, name: &str, wanted: &DataType) -> Result<Column, String> {
        let Ok(at) = self.schema.index_of(name) else { return Err(format!("there is no column `{name}`")) };
        match self.schema.field(at).data_type() {
            found if found == wanted => Ok(Column { at, name: name.to_owned() }),
            found => Err(format!("the column `{name}` is {found}, and not {wanted}")),
        }
    }

    /// The columns of what every request has: if all of these are null in a row, it is none. Empty if the input has none of
    /// them.
    pub fn of_every_request(&self) -> Vec<usize> {
        [Part::Method, Part::Path].into_iter().filter_map(|part| Some(self.part(part).ok()?.at)).collect()
    }
}

impl Row for Columns {
    fn part(&self, part: Part) -> Result<Column, String> {
        self.parts.get(part as usize).cloned().unwrap_or_else(|| Err("defect: a part without a column".to_owned()))
    }

    fn header(&self, name: &str) -> Result<Column, String> {
        match self.headers.get(name) {
            Some(column) => Ok(column.clone()),
            None => self.find(&format!("{HEADER}{}", name.to_ascii_lowercase().replace('-', "_")), &DataType::Utf8),
        }
    }
}
