//! Where in an object a value stands, written as Kubernetes writes it: `spec.containers[0].resources.limits[cpu]`.

use std::borrow::Cow;
use std::fmt;

/// One step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// A member of a structure: `.name`.
    Field(Cow<'static, str>),
    /// An item of an array: `[0]`.
    Index(usize),
    /// A member of a free-form map: `[memory]`.
    Key(String),
}

/// A field path. The empty path is the whole object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(Vec<Segment>);

impl Path {
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// `a.b.c` as a path; for constants only, a dot inside a name is not understood.
    pub(crate) fn of(dotted: &'static str) -> Self {
        Path::root().under(dotted)
    }

    /// This path followed by the dotted constant.
    pub(crate) fn under(&self, dotted: &'static str) -> Self {
        let mut path = self.clone();
        path.0.extend(dotted.split('.').filter(|name| !name.is_empty()).map(|name| Segment::Field(name.into())));
        path
    }

    pub(crate) fn field(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.then(Segment::Field(name.into()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.then(Segment::Key(key.to_owned()))
    }

    pub(crate) fn then(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether `self` is `other` or lies inside it.
    pub(crate) fn is_inside(&self, other: &Path) -> bool {
        self.0.len() >= other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| a.name() == b.name())
    }
}

impl Segment {
    /// How the step is spelled in JSON; `.x` and `[x]` are the same member.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match self {
            Segment::Field(name) => Cow::Borrowed(name),
            Segment::Key(name) => Cow::Borrowed(name),
            Segment::Index(index) => Cow::Owned(format!("[{index}]")),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if at == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}
