//! Cluster state: leases, the directory and the store on a real etcd.

#[path = "../support/mod.rs"]
mod support;

mod damaged_rows;
#[cfg(feature = "cluster")]
mod etcd_members_apart;
#[cfg(feature = "cluster")]
mod faults;
mod import_export;
#[cfg(feature = "cluster")]
mod leases;
#[cfg(feature = "cluster")]
mod put_back;
#[cfg(feature = "cluster")]
mod refusals;
#[cfg(feature = "cluster")]
mod registration;
#[cfg(feature = "cluster")]
mod repair;
#[cfg(feature = "cluster")]
mod store_on_etcd;
mod store_over_a_cluster;
