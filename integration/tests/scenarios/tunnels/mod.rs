//! Two subnets and a router that knows no pod: which way packets go for every mode of a pool, on the wire and by every account.

mod check;
mod crash;
mod expect;
mod ipip;
mod mtu;
mod vxlan;
