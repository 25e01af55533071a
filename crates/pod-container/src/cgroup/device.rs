//! Which device nodes a group may use.

/// Access of a group to device nodes, beyond what file permissions say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Devices {
    /// No rule of its own: what the parent may.
    #[default]
    Unchanged,
    /// A privileged container.
    AllowAll,
    /// Nothing but these.
    Only(Vec<Rule>),
}

/// One permission. `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Character,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl Access {
    pub const ALL: Access = Access { read: true, write: true, mknod: true };
    pub const MKNOD: Access = Access { read: false, write: false, mknod: true };
}

impl Devices {
    /// What every container may use: making any node, and using `null zero full random urandom tty ptmx` and
    /// pseudo-terminals (as runc allows).
    pub fn standard() -> Devices {
        let any = |kind| Rule { kind, major: None, minor: None, access: Access::MKNOD };
        let character = |major, minor| Rule { kind: Kind::Character, major: Some(major), minor, access: Access::ALL };
        Devices::Only(vec![
            any(Kind::Character),
            any(Kind::Block),
            character(1, Some(3)),
            character(1, Some(5)),
            character(1, Some(7)),
            character(1, Some(8)),
            character(1, Some(9)),
            character(5, Some(0)),
            character(5, Some(2)),
            character(136, None),
        ])
    }
}

impl Rule {
    /// The line `devices.allow` of v1 takes, such as `c 136:* rwm`.
    pub(super) fn to_v1(self) -> String {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            Kind::Character => 'c',
            Kind::Block => 'b',
        };
        let mut line = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (wanted, letter) in [(self.access.read, 'r'), (self.access.write, 'w'), (self.access.mknod, 'm')] {
            if wanted {
                line.push(letter);
            }
        }
        line
    }
}
