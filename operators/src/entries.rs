//! Lists of entries that a pipeline gives itself or names the files of: features, rules, schemes of verdicts. Also what
//! entries with a condition and a text have in common: how both are checked, and how conditions are asked of rows.

mod masks;
mod template;

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use arrow::datatypes::Schema;
use engine::contract::PlanContext;
use engine::contract::{ExprFault, Scalar};
use engine::spec::{Diagnostic, Located, Value, nearest, options};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

pub(crate) use masks::{mask, rejects};
use template::Fault;
pub(crate) use template::{Template, visible};

/// Where entries stand. `T` refuses unknown keys.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Given<T> {
    /// A YAML file with a list of entries.
    File(PathBuf),
    /// The entries themselves, and files of entries, in their order.
    List(Vec<Located<Item<T>>>),
}

/// An item of a list of entries.
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Item<T> {
    /// A YAML file with a list of entries.
    File(PathBuf),
    /// An entry.
    Entry(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    /// By hand: an untagged enum would lose the places of the entries.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FileOrList<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FileOrList<T> {
            type Value = Given<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path or a list")
            }
            fn visit_str<E>(self, path: &str) -> Result<Given<T>, E> {
                Ok(Given::File(path.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Given<T>, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map(Given::List)
            }
        }
        deserializer.deserialize_any(FileOrList(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Item<T> {
    /// As [`Given`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FileOrEntry<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FileOrEntry<T> {
            type Value = Item<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping or a file's path")
            }
            fn visit_str<E>(self, path: &str) -> Result<Item<T>, E> {
                Ok(Item::File(path.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Item::Entry)
            }
        }
        deserializer.deserialize_any(FileOrEntry(PhantomData))
    }
}

/// The entries that can be read, and whether that is all of them: what is wrong is reported where it stands. `plural` is
/// what they are called. `None` if there are none.
pub(crate) fn read<T: DeserializeOwned>(
    given: Located<Given<T>>,
    plural: &str,
    context: &mut PlanContext<'_>,
) -> Option<(Vec<T>, bool)> {
    let span = given.span;
    let items = match given.value {
        Given::File(path) => vec![Located::new(Item::File(path), span)],
        Given::List(items) => items,
    };
    let (mut entries, mut complete) = (Vec::with_capacity(items.len()), true);
    for item in items {
        match item.value {
            Item::Entry(entry) => entries.push(entry),
            Item::File(path) => {
                complete &= from_file(&Located::new(path, item.span), plural, &mut entries, context).is_some();
            }
        }
    }
    if entries.is_empty() && complete {
        context.error(span, format!("there are no {plural}"));
        return None;
    }
    Some((entries, complete))
}

/// Appends the entries of a file that can be read; `None` if those are not all.
fn from_file<T: DeserializeOwned>(
    path: &Located<PathBuf>,
    plural: &str,
    entries: &mut Vec<T>,
    context: &mut PlanContext<'_>,
) -> Option<()> {
    let tree = context.yaml(path)?;
    let Value::List(items) = &tree.value else {
        context.error(tree.span, format!("a file of {plural} is a list of them, not {}", tree.kind()));
        return None;
    };
    if items.is_empty() {
        context.error(tree.span, format!("there are no {plural}"));
        return None;
    }
    let mut problems: Vec<Diagnostic> = Vec::new();
    entries.extend(items.iter().filter_map(|item| options::read::<T>(item, &mut problems)));
    let complete = problems.is_empty();
    problems.into_iter().for_each(|problem| context.report(problem));
    complete.then_some(())
}

/// Compiles an entry's condition; what is wrong with it is reported at its place.
pub(crate) fn condition(sql: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Scalar> {
    match context.scalar(sql, schema)?.truth() {
        Ok(condition) => Some(condition),
        Err(fault) => {
            context.expression_fault(sql, &fault);
            None
        }
    }
}

/// Reads an entry's text; what is wrong with it is reported at its place.
pub(crate) fn template(text: &Located<String>, schema: &Schema, context: &mut PlanContext<'_>) -> Option<Template> {
    let fault = match Template::parse(&text.value, schema) {
        Ok(template) => return Some(template),
        Err(fault) => fault,
    };
    let fault = match fault {
        Fault::Other { message, part } => ExprFault { part, ..ExprFault::new(message) },
        Fault::Unknown(name) => {
            let near = nearest(&name, schema.fields().iter().map(|f| f.name().as_str()));
            ExprFault {
                help: near.map(|near| format!("did you mean `{near}`?")),
                ..ExprFault { part: Some(name.clone()), ..ExprFault::new(format!("no column `{name}`")) }
            }
        }
    };
    context.expression_fault(text, &fault);
    None
}
