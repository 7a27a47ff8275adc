//! `causeway-bgpd`: the BGP speaker of a node.

fn main() -> std::process::ExitCode {
    causeway_bgpd::run::bgpd_main()
}
