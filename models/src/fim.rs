//! Fill-in-the-middle: every family's format as data.

/// How one family of models writes a FIM prompt.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name an operator can write in a cloud row.
    pub name: &'static str,
}
