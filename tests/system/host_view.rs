//! What a run keeps of its host is never older than the question: whatever is changed, a probe that has looked before says the
//! same as one that has never looked.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::chance::Chance;
use fanli::failure::Failure;
use fanli::system::{BlobFuture, BlobSource, Probe};
use fanli::value::Digest;

struct NoBlobs;

impl BlobSource for NoBlobs {
    fn get(&self, _: Digest) -> BlobFuture<'_> {
        Box::pin(async { Err(Failure::new("no blobs here")) })
    }
}

fn probe() -> Probe {
    Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), "/var/lib/fanli".into())
}

/// A network namespace; gone when dropped.
struct Space(String);

impl Space {
    fn new() -> Self {
        let space = Self(format!("fprhv{}", std::process::id() % 100_000));
        assert!(Command::new("ip").args(["netns", "add", &space.0]).status().unwrap().success());
        space
    }

    /// Whether the kernel took it.
    fn run(&self, script: &str) -> bool {
        let net = format!("--net=/var/run/netns/{}", self.0);
        let script = format!("exec 2>/dev/null; {script}");
        Command::new("nsenter").args([&net, "sh", "-ec", &script]).status().unwrap().success()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// What happens on a host.
const CHANGES: [&str; 24] = [
    "ip link add a0 type veth peer name a1",
    "ip link del a0",
    "ip link set a0 up; ip link set a1 up",
    "ip link set a0 down",
    "ip link set a1 down",
    "ip link set a0 mtu 1400",
    "ip link set a0 mtu 1500",
    "ip link set a0 address 02:00:00:00:00:07",
    "ip link set a0 alias fanli:1:something",
    "ip link set a0 alias \"\"",
    "ip link add b0 type bridge; ip link set b0 up",
    "ip link set a1 master b0",
    "ip link set a1 nomaster",
    "ip link del b0",
    "ip link add m0 link a0 type macvlan mode bridge",
    "ip link set m0 type macvlan mode private",
    "ip addr add 10.66.0.1/24 dev a0",
    "ip addr del 10.66.0.1/24 dev a0",
    "ip addr add fd00:66::1/64 dev a0 nodad",
    "ip route add 10.67.0.0/24 via 10.66.0.2",
    "ip route del 10.67.0.0/24",
    "ip route replace 10.66.0.9/32 dev a0 src 10.66.0.1",
    "ip link add v0 type vxlan id 7 dev a0 dstport 14789 nolearning; bridge fdb append 00:00:00:00:00:00 dev v0 dst 10.66.0.7",
    "bridge fdb replace 02:00:00:00:00:08 dev v0 dst 10.66.0.8",
];

/// In words: the links, addresses and routes, and the table of the tunnel.
async fn told(probe: &Probe) -> String {
    let network = probe.host_network().await.unwrap();
    let tunnel = network.link("v0").map(|link| link.index);
    let table = match tunnel {
        Some(tunnel) => probe.host_forwards(tunnel).await.unwrap(),
        None => Vec::new(),
    };
    format!("{network:#?}\n{table:?}")
}

#[test]
fn what_is_kept_of_a_host_is_as_new_as_the_question() {
    let mut chance = Chance::new();
    let space = Space::new();
    let mut again = 0;
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let file = std::fs::File::open(format!("/var/run/netns/{}", space.0)).unwrap();
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
            // All on this thread: its sockets are the namespace's.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let kept = probe();
                for turn in 0..300 {
                    // The first one, from a random place on, that the kernel takes as things are.
                    let from = chance.index(CHANGES.len());
                    let mut all = CHANGES.iter().cycle().skip(from).take(CHANGES.len());
                    let change = *all.find(|change| space.run(change)).unwrap();
                    // A carrier comes and goes a moment later, which both must see in the end.
                    let deadline = Instant::now() + Duration::from_secs(3);
                    loop {
                        let (ours, fresh) = (told(&kept).await, told(&probe()).await);
                        if ours == fresh {
                            break;
                        }
                        assert!(Instant::now() < deadline, "turn {turn}, after `{change}`:\n{ours}\nnot\n{fresh}");
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    // Nothing happens between two questions but a carrier: then it is not listed again.
                    let first = kept.host_network().await.unwrap();
                    again += u32::from(Arc::ptr_eq(&first, &kept.host_network().await.unwrap()));
                }
            });
        });
        inside.join().unwrap();
    });
    println!("{again} of 300 second questions were answered from what is kept");
    assert!(again > 200, "{again} kept");
}
