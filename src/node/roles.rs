//! The roles of a node: the singleton concerns that each allows, and the log lines of those that are off.

pub use crate::rpc::directory::Role;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchRole(pub String);

/// The distributed miner's own words at the start of a node without this role; operators' scripts look for them.
pub fn off_line(role: Role) -> Option<&'static str> {
    match role {
        Role::Markets => Some("This miner will be disable p2p"),
        Role::WinningPost => Some("This miner will be disable minning block"),
        Role::WindowPost => Some("This miner will be disable windowPoSt"),
        Role::Sealing | Role::Allocator | Role::Storage | Role::DaemonLink | Role::All => None,
    }
}

/// Every role but `all`.
fn each() -> impl Iterator<Item = Role> {
    Role::EACH.into_iter().filter(|role| *role != Role::All)
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
        Roles(each().collect())
    }

    pub fn of(roles: impl IntoIterator<Item = Role>) -> Roles {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        if roles.contains(&Role::All) { Roles::all() } else { Roles(roles) }
    }

    /// Names, `all` among them or not.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Roles, NoSuchRole> {
        let mut roles = BTreeSet::new();
        for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            match name.parse().map_err(NoSuchRole)? {
                Role::All => roles.extend(each()),
                role => drop(roles.insert(role)),
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

    /// As the directory's records have them.
    pub fn set(&self) -> BTreeSet<Role> {
        self.0.clone()
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|role| role.name().to_string()).collect()
    }

    /// Log lines of the roles that are off.
    pub fn off_lines(&self) -> impl Iterator<Item = &'static str> {
        each().filter(|role| !self.has(*role)).filter_map(off_line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_as_operators_write_them() {
        assert_eq!(Roles::parse(["all"]), Ok(Roles::all()));
        assert_eq!(Roles::parse(["", " "]), Ok(Roles::of([])));
        assert_eq!(
            Roles::parse(["markets", " sealing ", "sealing"]).map(|r| r.names()),
            Ok(vec!["sealing".into(), "markets".into()])
        );
        assert!(Roles::parse(["seal"]).unwrap_err().to_string().contains("window-post"));
        assert_eq!(Roles::of([Role::All]), Roles::all());
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
