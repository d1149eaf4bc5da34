//! The tier behind its balancer, while clients with a ledger ask: no release fails a request, and none that is not good gets far.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::run::{Play, get, must, play_in, project};
use super::shared_lab::{HOSTS, converged, mend, nodes, on};
use crate::balance::ledger::{Client, Load, summary};

/// Clients that notice whatever goes wrong: kept connections, new ones, bodies that come slowly, large ones.
const CLIENTS: [(Client, usize); 5] = [
    (Client::KeepAlive, 4),
    (Client::Once, 4),
    (Client::SlowPost, 4),
    (Client::SlowPostKeepAlive, 2),
    (Client::Upload, 1),
];

/// Where the balancer listens.
const FRONT: &str = "10.88.0.1:80";

/// The project as a team has it that edits its templates and its image.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().to_str().unwrap();
        // Addresses are bound to the project's book, which goes along.
        let from = project();
        for name in ["playbooks", "templates", "images", ".fanli"] {
            must("cp", &["-a", from.join(name).to_str().unwrap(), to]);
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }

    /// Another image for the nodes, on top of the one that they have: what is below it is not built again.
    fn image(&self, dockerfile: &str) {
        fs::write(self.path("images/web/Dockerfile"), dockerfile).unwrap();
    }

    /// A run while clients ask; not one request of theirs may fail.
    #[track_caller]
    fn play(&self, what: &str, more: &[&str]) -> Play {
        let load = Load::start(std::process::id(), FRONT, &CLIENTS);
        std::thread::sleep(Duration::from_secs(1));
        let done = play_in(self.folder.path(), &[&["--env", "lab"], more].concat());
        std::thread::sleep(Duration::from_secs(1));
        let rows = load.stop();
        eprintln!("{what}: {} in {:.0?}", summary(&rows), done.took);
        assert!(rows.len() > 100, "{what}: only {} requests", rows.len());
        assert!(rows.iter().all(|row| !row.failed()), "{what}: {}\n{}", summary(&rows), done.told());
        done
    }
}

/// Container ID and start of each node.
fn lives() -> Vec<String> {
    HOSTS
        .iter()
        .map(|host| on(host, &format!("docker inspect -f '{{{{.Name}}}} {{{{.Id}}}}' {}", nodes(host)[0].0)))
        .collect()
}

/// The start of Apache's first process in each node.
fn apaches() -> Vec<String> {
    HOSTS.iter().map(|host| on(host, &format!("docker exec {} supervisorctl pid apache2", nodes(host)[0].0))).collect()
}

#[track_caller]
fn refused(run: &Play, by: &str) {
    assert_eq!(run.code, Some(4), "{}", run.told());
    assert!(run.text.contains(by), "it does not say `{by}`: {}", run.told());
}

#[test]
fn c1_images_configuration_and_supervisor_go_out_and_no_request_fails() {
    let _lab = converged();
    let copy = Copy::new();
    let before = (lives(), apaches());
    copy.edit("templates/apache2/httpd.conf", "KeepAliveTimeout 2", "KeepAliveTimeout 3");
    copy.play("another configuration of Apache", &[]).expect_good();
    assert_eq!((lives(), apaches()), before, "reloaded, not restarted");

    copy.edit("templates/supervisor/programs/apache2.conf", "stopwaitsecs = 12", "stopwaitsecs = 13");
    copy.play("another configuration of supervisor", &[]).expect_good();
    assert_eq!(lives(), before.0);
    let now = apaches();
    assert!(now.iter().zip(&before.1).all(|(now, before)| now != before), "taken in anew: {before:?} {now:?}");

    copy.image("FROM fanli/web:1\nENV RELEASE=2\n");
    // Under the same name: what the nodes would be given is not there yet.
    let check = play_in(copy.folder.path(), &["--env", "lab", "--check"]).expect_good();
    let unknown = |kind: &str| check.steps.iter().filter(|step| step.kind == kind && step.outcome == "unknown").count();
    assert_eq!(unknown("standing"), 3, "{}", check.told());
    assert!(!check.text.contains("\"title\":\"nodes\",\"news\":\"nothing\""), "{}", check.told());
    copy.play("another image", &["--set", "release=2"]).expect_good();
    assert!(lives().iter().zip(&before.0).all(|(now, before)| now != before));
    copy.play("nothing", &["--set", "release=2"]).expect_nothing_done();
    mend();
}

#[test]
fn c2_what_is_not_good_fails_no_request_either() {
    let _lab = converged();
    let copy = Copy::new();
    let before = (lives(), apaches());

    // Apache's own check lets it through, and every page but the health check is gone.
    let right = fs::read_to_string(copy.path("templates/apache2/sites.conf")).unwrap();
    copy.edit("templates/apache2/sites.conf", "\"/opt/webdata/{{ site }}\"", "\"/opt/webdata/none/{{ site }}\"");
    refused(&copy.play("a wrong DocumentRoot", &[]), "404");
    fs::write(copy.path("templates/apache2/sites.conf"), right).unwrap();

    copy.edit("templates/supervisor/programs/apache2.conf", "httpd -D", "httpd -Z -D");
    refused(&copy.play("a wrong command of supervisor's", &[]), "trial");
    copy.edit("templates/supervisor/programs/apache2.conf", "httpd -Z -D", "httpd -D");
    assert_eq!((lives(), apaches()), before, "no node was touched");

    copy.image("FROM fanli/web:1\nCMD [\"/bin/false\"]\n");
    let run = copy.play("an image that cannot start", &["--set", "release=3"]);
    refused(&run, "1 node put back");
    let (now, was) = (lives(), before.0);
    // It gets its own former container back, or one like it where the new one ran for a moment.
    assert!(now.iter().zip(&was).filter(|(now, was)| now != was).count() <= 1, "the canary alone: {was:?} {now:?}");
    for host in HOSTS {
        let (name, address) = nodes(host).remove(0);
        assert_eq!(get(&address, "/"), (200, name));
    }
    mend();
}
