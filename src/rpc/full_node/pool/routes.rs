//! How each method of a full node is sent to the nodes of a pool: its category, its policy, and what an operator set.

use super::policy::Policy;
use crate::config::values::parse_duration;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which nodes a method may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    /// Only nodes marked for sealing.
    Sealing,
}

/// The route of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub policy: Policy,
    pub filter: Filter,
    /// With no node that can be used the call fails at once, instead of waiting for one until its deadline.
    pub no_hang: bool,
    /// For all tries together; zero: as long as the kind of call allows.
    pub timeout: Duration,
}

/// What an operator set for one method; `None` leaves the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouteChange {
    pub policy: Option<Policy>,
    pub filter: Option<Filter>,
    pub no_hang: Option<bool>,
    pub timeout: Option<Duration>,
}

/// The variables that set a method's route end so: `ChainNotify_APIRT_CONFIG=OneByIdRound,false,0s`.
pub const ROUTE_VARIABLE: &str = "_APIRT_CONFIG";

impl RouteChange {
    /// `policy`, or `policy,nohang`, or `policy,nohang,timeout`.
    pub fn parse(text: &str) -> Result<RouteChange, String> {
        let mut parts = text.split(',').map(str::trim);
        let mut change = RouteChange { policy: Some(parts.next().unwrap_or_default().parse()?), ..Default::default() };
        if let Some(no_hang) = parts.next() {
            change.set("nohang", no_hang)?;
        }
        if let Some(timeout) = parts.next() {
            change.set("timeout", timeout)?;
        }
        match parts.next() {
            None => Ok(change),
            Some(_) => Err("has more than policy,nohang,timeout".to_string()),
        }
    }

    /// `key`: policy, filter, nohang, timeout.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "policy" => self.policy = Some(value.parse()?),
            "nohang" => {
                let no_hang = value.to_ascii_lowercase().parse();
                self.no_hang = Some(no_hang.map_err(|_| format!("nohang is true or false, not {value:?}"))?);
            }
            "timeout" => {
                let timeout = parse_duration(value);
                self.timeout = Some(timeout.ok_or_else(|| format!("timeout is a time such as 30s, not {value:?}"))?);
            }
            "filter" => {
                self.filter = Some(match value {
                    "all" => Filter::All,
                    "sealing" => Filter::Sealing,
                    _ => return Err(format!("filter is all or sealing, not {value:?}")),
                });
            }
            _ => return Err(format!("{key:?} is no key of a method; there are policy, filter, nohang, timeout")),
        }
        Ok(())
    }

    fn onto(self, route: Route) -> Route {
        Route {
            policy: self.policy.unwrap_or(route.policy),
            filter: self.filter.unwrap_or(route.filter),
            no_hang: self.no_hang.unwrap_or(route.no_hang),
            timeout: self.timeout.unwrap_or(route.timeout),
        }
    }
}

/// `Filecoin.ChainHead` and `ChainHead` are the same method.
pub fn short(method: &str) -> &str {
    method.rsplit('.').next().unwrap_or(method)
}

/// The categories of `api types`, each with the first words of its methods' names.
pub const CATEGORIES: [(&str, &[&str]); 16] = [
    ("chain", &["Chain"]),
    ("beacon", &["Beacon"]),
    ("gas", &["Gas"]),
    ("sync", &["Sync"]),
    ("mpool", &["Mpool"]),
    ("miner", &["Miner"]),
    ("wallet", &["Wallet"]),
    ("state", &["State"]),
    ("msig", &["Msig"]),
    ("market", &["Market", "Client"]),
    ("paych", &["Paych"]),
    ("net", &["Net", "ID"]),
    ("auth", &["Auth"]),
    ("f3", &["F3"]),
    ("eth", &["Eth", "Web3", "Filecoin", "GetActorEvent", "Subscribe"]),
    ("node", &["Node", "Version", "Discover", "Session", "Shutdown", "Closing", "Log", "StartTime", "Create", "Raft"]),
];

/// `node` for a method that is known nowhere.
pub fn category(method: &str) -> &'static str {
    let name = short(method);
    let is = |starts: &&[&str]| starts.iter().any(|start| name.starts_with(start));
    CATEGORIES.iter().find(|(_, starts)| is(starts)).map_or("node", |(category, _)| category)
}

/// Blocks go to all nodes, so that one with few peers delays none; of everything else the caller's primary is asked first.
fn default_route(method: &str, default_policy: Policy) -> Route {
    let policy = match short(method) {
        "SyncSubmitBlock" => Policy::AllWithFirstSucceed,
        _ => default_policy,
    };
    Route { policy, filter: Filter::All, no_hang: false, timeout: Duration::ZERO }
}

/// The routes in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Routes {
    pub default_policy: Policy,
    /// By short name.
    pub changes: BTreeMap<String, RouteChange>,
}

impl Default for Routes {
    fn default() -> Self {
        Routes { default_policy: Policy::OneBySeedRound, changes: BTreeMap::new() }
    }
}

/// The routes that the environment's variables set, by short name; the error names the variable.
pub fn of_variables(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, RouteChange>, String> {
    let mut changes = BTreeMap::new();
    for (variable, value) in variables {
        let Some(method) = variable.strip_suffix(ROUTE_VARIABLE) else { continue };
        let change = RouteChange::parse(&value).map_err(|why| format!("{variable}: {why}"))?;
        changes.insert(short(method).to_string(), change);
    }
    Ok(changes)
}

impl Routes {
    pub fn of(&self, method: &str) -> Route {
        let route = default_route(method, self.default_policy);
        self.changes.get(short(method)).map_or(route, |change| change.onto(route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_set_routes_as_the_manual_writes_them() {
        let of = |name: &str, value: &str| {
            let changes = of_variables([(name.to_string(), value.to_string())].into_iter())?;
            Ok::<_, String>(Routes { changes, ..Routes::default() })
        };
        let routes = of("ChainNotify_APIRT_CONFIG", "OneByIdRound,true,5s").unwrap();
        let expected =
            Route { policy: Policy::OneByIdRound, filter: Filter::All, no_hang: true, timeout: Duration::from_secs(5) };
        assert_eq!(routes.of("Filecoin.ChainNotify"), expected);
        assert_eq!(routes.of("ChainHead").policy, Policy::OneBySeedRound);
        assert_eq!(routes.of("Filecoin.SyncSubmitBlock").policy, Policy::AllWithFirstSucceed);
        let only = of("ChainHead_APIRT_CONFIG", "OneByIndexAsc").unwrap().of("ChainHead");
        assert_eq!((only.policy, only.no_hang, only.timeout), (Policy::OneByIndexAsc, false, Duration::ZERO));
        for (value, part) in [
            ("Sometimes,false,0s", "is no policy"),
            ("OneByIdRound,maybe,0s", "nohang is true or false"),
            ("OneByIdRound,false,soon", "timeout is a time"),
            ("OneByIdRound,false,0s,1", "more than"),
        ] {
            let said = of("ChainHead_APIRT_CONFIG", value).unwrap_err();
            assert!(said.starts_with("ChainHead_APIRT_CONFIG: ") && said.contains(part), "{said}");
        }
        assert_eq!(of("PATH", "Sometimes"), Ok(Routes::default()));
    }

    #[test]
    fn methods_have_categories() {
        for (method, expected) in [
            ("Filecoin.ChainHead", "chain"),
            ("BeaconGetEntry", "beacon"),
            ("GasEstimateGasPremium", "gas"),
            ("SyncState", "sync"),
            ("MinerGetBaseInfo", "miner"),
            ("EthGetBalance", "eth"),
            ("Filecoin.Version", "node"),
            ("Forest.Unknown", "node"),
        ] {
            assert_eq!(category(method), expected, "{method}");
        }
    }
}
