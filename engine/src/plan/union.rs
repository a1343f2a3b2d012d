//! `from: [a, b]`: rows of several nodes as one input.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use crate::batch::{EdgeType, SEQ, TIME, time_type};

/// The type of an input that takes the rows of all of `members`, each named as it is written.
///
/// # Errors
/// Why they cannot be one input.
pub(super) fn union(members: &[(&str, &EdgeType)]) -> Result<EdgeType, String> {
    let Some(((name, first), others)) = members.split_first() else { return Err("`from` is empty".to_owned()) };
    if others.is_empty() {
        return Ok((*first).clone());
    }
    for (name, ty) in members {
        if ty.is_relation() {
            return Err(format!(
                "`{name}` is a relation, of which there is one row for a key: rows of several could not be told apart"
            ));
        }
        let has = |column: &str, ty_of: DataType| {
            ty.schema.field_with_name(column).is_ok_and(|field| *field.data_type() == ty_of && !field.is_nullable())
        };
        if !has(TIME, time_type()) || !has(SEQ, DataType::UInt64) {
            return Err(format!("the `{TIME}` or `{SEQ}` of `{name}` is not that of a stream"));
        }
    }
    let mut fields: Vec<Field> = first.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (other, ty) in others {
        if let Some(message) = difference((name, &first.schema), (other, &ty.schema)) {
            return Err(message);
        }
        for field in &mut fields {
            if ty.schema.field_with_name(field.name()).is_ok_and(Field::is_nullable) {
                field.set_nullable(true);
            }
        }
    }
    Ok(EdgeType::stream(Arc::new(Schema::new(fields))))
}

/// The first column in which two streams differ, whatever the order of their columns.
fn difference((a, of_a): (&str, &Schema), (b, of_b): (&str, &Schema)) -> Option<String> {
    let only = |(with, columns): (&str, &Schema), (without, others): (&str, &Schema)| {
        let column = columns.fields().iter().find(|field| others.index_of(field.name()).is_err())?;
        Some(format!("`{without}` has no column `{}`, which `{with}` has", column.name()))
    };
    let missing = only((a, of_a), (b, of_b)).or_else(|| only((b, of_b), (a, of_a)));
    missing.or_else(|| {
        of_a.fields().iter().find_map(|field| {
            let other = of_b.field_with_name(field.name()).ok()?;
            (field.data_type() != other.data_type()).then(|| {
                format!(
                    "the column `{}` is {} in `{a}` and {} in `{b}`",
                    field.name(),
                    field.data_type(),
                    other.data_type()
                )
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{EdgeClass, stream_schema};

    fn stream(fields: &[(&str, DataType, bool)]) -> EdgeType {
        EdgeType::stream(stream_schema(fields.iter().map(|(name, ty, null)| Field::new(*name, ty.clone(), *null))))
    }

    #[test]
    fn equal_columns_are_one_input_in_the_order_of_the_first() {
        let a = stream(&[("host", DataType::Utf8, false), ("status", DataType::Int64, true)]);
        let b = stream(&[("status", DataType::Int64, false), ("host", DataType::Utf8, true)]);
        let both = union(&[("a", &a), ("b", &b)]).expect("equal");
        let columns: Vec<_> = both.schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(columns, [("time", false), ("seq", false), ("host", true), ("status", true)]);
        assert_eq!(union(&[("a", &a)]).expect("alone"), a);
    }

    #[test]
    fn what_differs_is_said() {
        let a = stream(&[("host", DataType::Utf8, false)]);
        let b = stream(&[("host", DataType::Int64, false)]);
        let c = stream(&[("host", DataType::Utf8, false), ("path", DataType::Utf8, false)]);
        let relation = EdgeType { class: EdgeClass::Relation { key: vec!["host".to_owned()] }, ..a.clone() };
        for (members, said) in [
            ([("a", &a), ("b", &b)], "the column `host` is Utf8 in `a` and Int64 in `b`"),
            ([("a", &a), ("c", &c)], "`a` has no column `path`, which `c` has"),
            ([("c", &c), ("a", &a)], "`a` has no column `path`, which `c` has"),
            ([("a", &a), ("r", &relation)], "`r` is a relation"),
        ] {
            let message = union(&members).expect_err(said);
            assert!(message.contains(said), "{message}");
        }
        assert!(union(&[]).is_err());
    }
}
