//! A table read key by key, and what is left of it a complaint.

use toml::{Table, Value};

use super::Complaint;
use super::policy::OneOrMore;

/// A table being read; what is left in it when it is dropped was not known.
pub(super) struct Section<'a> {
    /// What complaints put before the key.
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
    complaints: &'a mut Vec<Complaint>,
}

impl<'a> Section<'a> {
    pub(super) fn new(prefix: String, table: Table, complaints: &'a mut Vec<Complaint>) -> Self {
        Self { prefix, table, known: Vec::new(), complaints }
    }

    /// Takes `[name]` out of the document.
    pub(super) fn of(document: &mut Table, name: &str, complaints: &'a mut Vec<Complaint>) -> Self {
        let table = match document.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                let message = format!("must be a table, is {}", kind(&other));
                complaints.push(Complaint { key: format!("[{name}]"), message });
                Table::new()
            }
        };
        Self::new(format!("[{name}] "), table, complaints)
    }

    pub(super) fn take<T: FromToml>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let is = kind(&value);
        let taken = T::from_toml(value);
        if taken.is_none() {
            let message = format!("must be {}, is {is}", T::KIND);
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
        }
        taken
    }
}

impl Section<'_> {
    /// A table inside this one, read by `read`; None when it is not there.
    pub(super) fn table<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut T, &mut Section<'_>),
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let Value::Table(table) = value else {
            let message = format!("must be a table, is {}", kind(&value));
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
            return None;
        };
        let mut inside = T::default();
        let prefix = format!("{}{key}.", self.prefix);
        read(&mut inside, &mut Section::new(prefix, table, self.complaints));
        Some(inside)
    }
}

impl Section<'_> {
    /// Every table inside this one, by its key; for tables whose keys are names of the user's.
    pub(super) fn tables<T: Default>(
        &mut self,
        read: impl Fn(&mut T, &mut Section<'_>),
    ) -> Vec<(String, T)> {
        let mut all = Vec::new();
        for (key, value) in std::mem::take(&mut self.table) {
            let Value::Table(table) = value else {
                let message = format!("must be a table, is {}", kind(&value));
                self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
                continue;
            };
            let mut inside = T::default();
            let prefix = format!("{}{key}.", self.prefix);
            read(&mut inside, &mut Section::new(prefix, table, self.complaints));
            all.push((key, inside));
        }
        all
    }
}

/// The rows `[[kind]]` of the document, each read by `read`; complaints call a row by the value of
/// `named_by`, or by its place.
pub(super) fn rows<T: Default>(
    document: &mut Table,
    kind: &str,
    named_by: &str,
    complaints: &mut Vec<Complaint>,
    read: impl Fn(&mut T, &mut Section<'_>),
) -> Vec<T> {
    let Some(value) = document.remove(kind) else { return Vec::new() };
    let rows = match value {
        Value::Array(rows) if rows.iter().all(Value::is_table) => rows,
        _ => {
            let message = format!("must be rows, each begun by [[{kind}]]");
            complaints.push(Complaint { key: format!("[[{kind}]]"), message });
            return Vec::new();
        }
    };
    let tables = rows.into_iter().filter_map(|row| match row {
        Value::Table(table) => Some(table),
        _ => None,
    });
    let mut all = Vec::new();
    for (index, table) in tables.enumerate() {
        let name = table.get(named_by).and_then(Value::as_str);
        let prefix = row_prefix(kind, name, index);
        let mut row = T::default();
        read(&mut row, &mut Section::new(prefix, table, complaints));
        all.push(row);
    }
    all
}

/// How complaints call a row: by its name, or by its place where it has none.
pub(in crate::config) fn row_prefix(kind: &str, name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("[[{kind}]] {name}: "),
        _ => format!("[[{kind}]] row {}: ", index + 1),
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for key in self.table.keys() {
            let message = format!("unknown key; known are {}", self.known.join(", "));
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
        }
    }
}

pub(super) trait FromToml: Sized {
    /// With its article.
    const KIND: &'static str;
    fn from_toml(value: Value) -> Option<Self>;
}

impl FromToml for String {
    const KIND: &'static str = "a string";
    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl FromToml for i64 {
    const KIND: &'static str = "an integer";
    fn from_toml(value: Value) -> Option<Self> {
        value.as_integer()
    }
}

impl FromToml for f64 {
    const KIND: &'static str = "a number";
    fn from_toml(value: Value) -> Option<Self> {
        // Whoever writes `enter = 1` means 1.0.
        value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
    }
}

impl FromToml for bool {
    const KIND: &'static str = "true or false";
    fn from_toml(value: Value) -> Option<Self> {
        value.as_bool()
    }
}

/// One string, or several in a list.
impl FromToml for OneOrMore {
    const KIND: &'static str = "a string or a list of strings";
    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::String(one) => Some(Self(vec![one])),
            list => Vec::from_toml(list).map(Self),
        }
    }
}

impl FromToml for Vec<String> {
    const KIND: &'static str = "a list of strings";
    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.into_iter().map(String::from_toml).collect(),
            _ => None,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
