//! Many at once: nobody waits for ever, nobody gets another one's address.

use std::collections::HashSet;

use crate::node::{Namespace, Node, addresses_of};

#[test]
fn adds_and_dels_at_once() {
    let node = Node::dual_stack();
    let pods: Vec<Namespace> = (0..24).map(|_| Namespace::new()).collect();
    for round in 0..2 {
        let results: Vec<Vec<String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(at, pod)| {
                    let node = &node;
                    scope.spawn(move || {
                        let container = format!("c{round}-{at}");
                        let result = node.add(&container, pod).ok();
                        node.check(&container, pod, &result).ok();
                        addresses_of(&result)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let given: Vec<&String> = results.iter().flatten().collect();
        assert_eq!(given.len(), 48);
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 48, "an address twice");
        assert_eq!(node.veths().len(), 24);
        std::thread::scope(|scope| {
            for (at, pod) in pods.iter().enumerate() {
                let node = &node;
                scope.spawn(move || node.del(&format!("c{round}-{at}"), pod).ok());
            }
        });
        node.assert_clean();
    }
}

#[test]
fn more_at_once_than_there_are_addresses() {
    let node = Node::new(&["10.244.1.0/29"]);
    let pods: Vec<Namespace> = (0..12).map(|_| Namespace::new()).collect();
    let served: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(at, pod)| {
                let node = &node;
                scope.spawn(move || {
                    let answer = node.add(&format!("c{at}"), pod);
                    match answer.status {
                        Some(0) => 1,
                        _ => {
                            assert_eq!(answer.error().0, 101);
                            0
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(served, 6);
    assert_eq!(node.records().len(), 6);
    assert_eq!(node.veths().len(), 6);
}
