//! What a node may run: roles, the singleton concerns that each allows, and what is said at the start of those that are off.

use std::collections::BTreeSet;
use std::str::FromStr;

/// A kind of work that a node takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    WindowPost,
    WinningPost,
    Sealing,
    Markets,
    Allocator,
    Storage,
    DaemonLink,
}

impl Role {
    pub const ALL: [Role; 7] = [
        Role::WindowPost,
        Role::WinningPost,
        Role::Sealing,
        Role::Markets,
        Role::Allocator,
        Role::Storage,
        Role::DaemonLink,
    ];

    /// As the configuration and the directory write it.
    pub fn name(self) -> &'static str {
        match self {
            Role::WindowPost => "window-post",
            Role::WinningPost => "winning-post",
            Role::Sealing => "sealing",
            Role::Markets => "markets",
            Role::Allocator => "allocator",
            Role::Storage => "storage",
            Role::DaemonLink => "daemon-link",
        }
    }

    /// The distributed miner's own words at the start of a node without this role; operators' scripts look for them.
    pub fn off_line(self) -> Option<&'static str> {
        match self {
            Role::Markets => Some("This miner will be disable p2p"),
            Role::WinningPost => Some("This miner will be disable minning block"),
            Role::WindowPost => Some("This miner will be disable windowPoSt"),
            Role::Sealing | Role::Allocator | Role::Storage | Role::DaemonLink => None,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no role; roles are window-post, winning-post, sealing, markets, allocator, storage, daemon-link, or all"
)]
pub struct NoSuchRole(pub String);

impl FromStr for Role {
    type Err = NoSuchRole;
    fn from_str(text: &str) -> Result<Role, NoSuchRole> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| NoSuchRole(text.to_string()))
    }
}

/// A node's roles; all of them unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Default for Roles {
    fn default() -> Roles {
        Roles::all()
    }
}

impl Roles {
    pub fn all() -> Roles {
        Roles(Role::ALL.into())
    }

    pub fn of(roles: impl IntoIterator<Item = Role>) -> Roles {
        Roles(roles.into_iter().collect())
    }

    /// Names, `all` among them or not.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Roles, NoSuchRole> {
        let mut roles = BTreeSet::new();
        for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "all" => roles.extend(Role::ALL),
                name => drop(roles.insert(name.parse()?)),
            }
        }
        Ok(Roles(roles))
    }

    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    pub fn without(mut self, role: Role) -> Roles {
        self.0.remove(&role);
        self
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|role| role.name().to_string()).collect()
    }

    /// What the log says of the roles that are off.
    pub fn off_lines(&self) -> impl Iterator<Item = &'static str> {
        Role::ALL.into_iter().filter(|role| !self.has(*role)).filter_map(Role::off_line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_as_operators_write_them() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert_eq!(Roles::parse(["all"]), Ok(Roles::all()));
        assert_eq!(Roles::parse(["", " "]), Ok(Roles::of([])));
        assert_eq!(
            Roles::parse(["markets", " sealing ", "sealing"]).map(|r| r.names()),
            Ok(vec!["sealing".into(), "markets".into()])
        );
        assert_eq!(Roles::parse(["seal"]), Err(NoSuchRole("seal".into())));
    }

    #[test]
    fn a_role_that_is_off_is_said_in_the_words_of_the_distributed_miner() {
        let said = |roles: Roles| roles.off_lines().collect::<Vec<_>>();
        assert!(said(Roles::all()).is_empty());
        assert_eq!(said(Roles::all().without(Role::Markets)), ["This miner will be disable p2p"]);
        assert_eq!(
            said(Roles::of([Role::Sealing, Role::Markets])),
            ["This miner will be disable windowPoSt", "This miner will be disable minning block"]
        );
        assert!(said(Roles::all().without(Role::Allocator)).is_empty());
    }
}
