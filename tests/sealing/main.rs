//! A sector from its number to its proof on chain: allocator, scheduler, agents.

#[path = "../support/mod.rs"]
mod support;

mod actors;
mod agent_seals_sectors;
mod allocator_numbers;
mod allocator_over_partitions;
mod cost_per_head;
mod crosses_a_devnet_upgrade;
mod crosses_a_real_upgrade;
mod crosses_an_upgrade;
mod damaged_records;
mod kill_nine_in_every_phase;
mod resume;
mod retries;
mod waits_for_room;
