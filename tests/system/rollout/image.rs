//! Rollouts of an image: nodes are made anew batch by batch, and get back the very image that they had.

use std::collections::BTreeMap;
use std::time::Duration;

use super::place::{NODES, Place, STRICT, get};
use super::under_load;

pub const PLAYBOOK: &str = r#"
vars {
  image  = "frt/web:1"
  memory = 128MiB
}

nodes web {
  addresses = [NET.8.11, NET.8.12, NET.8.13, NET.8.14, NET.8.15, NET.8.16]
  on        = hosts.docker
  network   = "lan"
  name      = "web{{ node.index }}"
}

role web_node(image: string) {
  container node.name {
    image        = image
    command      = ["/usr/bin/supervisord", "-n", "-c", "/super/supervisord.conf"]
    memory       = memory
    tmpfs        = ["/run:mode=0755", "/tmp", "/var/log"]
    mounts       = ["/data/usr" -> "/usr" read_only]
    stop_timeout = 2s
    attach "lan" { address = node.address }
  }
}

play "watchers" on hosts.docker {
  watcher {}
}

rollout "image" on nodes.web batch [1, 2, 100%] {
  settle = 200ms

  drain on hosts.balancers {
    backend node.name { haproxy = "/run/haproxy.sock"  pool = "web" }
  }

  change {
    web_node { image = image }
  }

  healthy {
    http "http://{{ node.address }}/" { times = 2  every = 200ms  within = 30s }
  }
}

play "nodes" on nodes.web {
  web_node { image = image }
}
"#;

const SUPERVISOR: &str = "[supervisord]\nnodaemon = true\nuser = root\npidfile = /run/supervisord.pid\n\
    logfile = /run/supervisord.log\n\
    [program:apache2]\ncommand = /usr/sbin/apache2 -f /conf/httpd.conf -D FOREGROUND\nstartsecs = 1\n\
    stopsignal = WINCH\nredirect_stderr = true\nstdout_logfile = /run/apache.out\nstdout_logfile_maxbytes = 0\n";

const APACHE: &str = r"LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
ServerRoot /run
ServerName web
Listen 80
PidFile /run/httpd.pid
ErrorLog /dev/stderr
DefaultRuntimeDir /run
DocumentRoot /www
User www-data
Group www-data
DirectoryIndex index.html
StartServers 1
ServerLimit 4
ThreadsPerChild 16
MaxRequestWorkers 64
KeepAliveTimeout 300
";

/// What an image lacks.
#[derive(Clone, Copy, PartialEq)]
pub enum Lacks {
    Nothing,
    /// Apache runs, and has nothing to give.
    ThePage,
    /// Its program ends at once.
    TheProgram,
}

/// What a node is: its container's ID, the ID of its image, its address and MAC, and what was declared for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Is {
    container: String,
    image: String,
    wire: String,
    declared: String,
}

impl Place {
    /// An image on both hosts whose page says `word`.
    pub fn image(&self, name: &str, word: &str, lacks: Lacks) {
        let mut files = vec![("conf/httpd.conf", APACHE)];
        let page = format!("this is {word}\n");
        if lacks != Lacks::ThePage {
            files.push(("www/index.html", &page));
        }
        if lacks != Lacks::TheProgram {
            files.push(("super/supervisord.conf", SUPERVISOR));
        }
        let write = |(path, text): &(&str, &str)| format!("cat > $d/{path} <<'END'\n{text}\nEND\n");
        let files: String = files.iter().map(write).collect();
        for host in [1, 2] {
            self.on(
                host,
                &format!(
                    "d=$(mktemp -d); mkdir -p $d/etc $d/tmp $d/run $d/usr $d/var/log $d/root $d/conf $d/www $d/super; \
                     for link in bin sbin lib lib64; do ln -s usr/$link $d/$link; done; \
                     printf 'root:x:0:0:root:/root:/bin/sh\\nwww-data:x:33:33::/:/bin/false\\n' > $d/etc/passwd; \
                     printf 'root:x:0:\\nwww-data:x:33:\\n' > $d/etc/group; echo {word} > $d/etc/word\n{files}\
                     tar -C $d -c . | docker import - {name} > /dev/null; rm -r $d"
                ),
            );
        }
    }

    /// Two hosts whose nodes went out with the image that says `one`. A watcher plugs in what was made anew, too; without one that is
    /// the run's part alone.
    pub fn with_images(watched: bool) -> Self {
        Self::with_images_by(
            &PLAYBOOK.replace("watcher {}", if watched { "watcher {}" } else { "directory \"/data\" {}" }),
        )
    }

    pub fn with_images_by(playbook: &str) -> Self {
        let place = Self::bare(STRICT);
        place.write("extra/word", "old\n");
        place.playbook(playbook);
        place.image("frt/web:1", "one", Lacks::Nothing);
        let said = place.play(&[]).good();
        eprintln!("{}", said.text);
        place.all_up();
        place
    }

    pub fn is(&self) -> BTreeMap<&'static str, Is> {
        let look = |node: &&'static str| {
            let shown = self.on(
                Self::host_of(node),
                &format!(
                    "docker inspect -f '{{{{.Id}}}}|{{{{.Image}}}}|{{{{json .HostConfig}}}} {{{{json .Config.Cmd}}}} {{{{json .Config.Labels}}}}' {node}; \
                     docker exec {node} sh -c 'cat /sys/class/net/eth0/address; ip -4 -o addr show eth0; ip route'"
                ),
            );
            let (inspected, wire) = shown.split_once('\n').unwrap();
            let mut parts = inspected.splitn(3, '|').map(str::to_owned);
            let mut part = || parts.next().unwrap();
            (*node, Is { container: part(), image: part(), declared: part(), wire: wire.to_owned() })
        };
        NODES.iter().map(look).collect()
    }

    #[track_caller]
    pub fn all_say(&self, word: &str) {
        for node in NODES {
            let page = self.page(node);
            assert!(page.contains(&format!("this is {word}\n")), "{node}: {page}");
        }
    }

    /// All that a node itself answers.
    pub fn page(&self, node: &str) -> String {
        get(&self.address(node), "/")
    }

    fn load<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        under_load(self, what, work)
    }

    /// Nothing is left on the hosts of what made containers anew.
    #[track_caller]
    pub fn is_tidy(&self) {
        for host in [1, 2] {
            let names = self.on(host, "docker ps -a --format '{{.Names}} {{.Status}}'");
            assert!(names.lines().count() == 3 && !names.contains(".fanli-") && !names.contains("Exited"), "{names}");
        }
    }
}

/// What must be the same again, whichever container it is.
pub fn same_again(is: &BTreeMap<&'static str, Is>) -> Vec<(&'static str, Is)> {
    is.iter().map(|(node, is)| (*node, Is { container: String::new(), ..is.clone() })).collect()
}

#[test]
fn an_image_goes_out_and_comes_back_and_no_request_fails() {
    let place = Place::with_images(true);
    place.all_say("one");
    let first = place.is();
    let said = place.play(&[]).nothing_done();
    assert!(said_nothing_to_roll_out(&said), "{}", said.text);
    assert_eq!(place.is(), first, "nodes that need nothing are left alone");

    // A new image under another name; what would happen is told, and nothing is done.
    place.image("frt/web:2", "two", Lacks::Nothing);
    let two = ["--set", "image=frt/web:2"];
    let check = place.play(&[&["--check", "--diff"][..], &two].concat()).good();
    eprintln!("{}", check.text);
    assert!(check.text.contains("frt/web:1 -> frt/web:2"), "{}", check.text);
    assert_eq!(place.is(), first);

    let said = place.load("a new image", || place.play(&two).good());
    eprintln!("{}", said.text);
    said.says("6 of 6 nodes to go, in batches of 1, 2, 3").says("rolled out to 6 nodes");
    place.all_say("two");
    let second = place.is();
    for (node, is) in &second {
        assert_ne!(is.image, first[node].image, "{node}");
        assert_eq!(is.wire, first[node].wire, "{node} keeps its address and its MAC");
    }
    let said = place.play(&two).nothing_done();
    assert!(said_nothing_to_roll_out(&said), "{}", said.text);
    assert_eq!(place.is(), second);

    // Only nodes that differ are touched.
    place.on(Place::host_of("web4"), "docker update --memory 64m --memory-swap 64m web4 > /dev/null");
    let said = place.load("one differs", || place.play(&two).good()).says("1 of 6 nodes to go, in batches of 1");
    eprintln!("{}", said.text);
    let third = place.is();
    for (node, is) in &third {
        assert_eq!(is.container != second[node].container, *node == "web4", "{node}");
    }
    assert_eq!(same_again(&third), same_again(&second));

    eprintln!("{}", place.fanli(&["rollout", "status", "web.fp"]).good().text);
    // By hand back to what was before the newest run that brought another image or declaration.
    let said = place.load("rollback", || place.fanli(&["rollout", "rollback", "web.fp"]).good());
    eprintln!("{}", said.text);
    place.all_say("one");
    assert_eq!(same_again(&place.is()), same_again(&first), "the very same images, declared in the same words");
    place.play(&[]).nothing_done();
    place.is_tidy();
}

/// Whether the rollout, too, found nothing to do.
fn said_nothing_to_roll_out(said: &super::place::Said) -> bool {
    said.text.contains("nothing to roll out: 6 nodes have it")
}

#[test]
fn an_image_that_is_broken_stops_at_the_canary_which_gets_back_what_it_had() {
    let place = Place::with_images(false);
    let before = place.is();
    let canary = NODES[0];
    for lacks in [Lacks::ThePage, Lacks::TheProgram] {
        // Under the name of the one that runs: the earlier one has no name any more.
        place.image("frt/web:1", "broken", lacks);
        let said = place.load("a broken image", || place.play(&[]));
        eprintln!("{}", said.text);
        assert_eq!(said.code, 4, "{}", said.text);
        let said = said.says("web1 failed, none may: putting 1 node back").says("1 node put back: all is as before");
        // The play behind it would have done to all at once what the canary did not stand.
        let said = said.says("play \"nodes\" does not take place, as rollout \"image\" did not come to its end");
        if lacks == Lacks::TheProgram {
            // Docker starts it again and again: it ends, or it may run for a moment.
            let ended = ["with exit code 2", "started again "].iter().any(|end| said.text.contains(end));
            assert!(ended, "how it ended is not told: {}", said.text);
            // Whoever looks when it is over finds nobody to ask.
            said.says("Error: could not find config file /super/supervisord.conf");
            let status = place.fanli(&["rollout", "status", "web.fp"]).good();
            eprintln!("{}", status.text);
            status
                .says("container web1  put back")
                .says("what did not come through had said last")
                .says("/super/supervisord.conf");
        }
        place.all_up();
        place.all_say("one");
        let after = place.is();
        assert_eq!(same_again(&after), same_again(&before), "the very same image, address and MAC");
        // The canary's own may be back, too: one that ended within a moment was never confirmed.
        for (node, is) in after.iter().filter(|(node, _)| **node != canary) {
            assert_eq!(is.container, before[node].container, "{node}");
        }
        place.is_tidy();
    }

    // What is mended goes out.
    place.image("frt/web:1", "mended", Lacks::Nothing);
    place.load("mended", || place.play(&[]).good()).says("rolled out to 6 nodes");
    place.all_say("mended");

    // An earlier image that is gone is told, and the node stays as it is.
    place.on(1, &format!("docker rmi {} > /dev/null", before[canary].image));
    let said = place.fanli(&["rollout", "rollback", "web.fp"]);
    eprintln!("{}", said.text);
    assert_eq!(said.code, 4, "{}", said.text);
    said.says("the earlier image frt/web:1").says("is gone from the hosts of web1, web3, web5: nothing was touched");
    place.all_say("mended");
    let said = place.fanli(&["rollout", "rollback", "web.fp", "--limit", "web4,web5,web6"]);
    eprintln!("{}", said.text);
    assert_eq!(said.code, 4, "{}", said.text);
    said.says("container web5 cannot be put back: its earlier image frt/web:1").says("COULD NOT put back web5");
    assert!(place.page("web5").contains("mended") && place.page("web6").contains("this is one"));
}

#[test]
fn killed_while_nodes_are_made_anew_it_goes_on_or_goes_back() {
    let place = Place::with_images(false);
    let first = place.is();
    place.image("frt/web:2", "two", Lacks::Nothing);
    for back in [true, false] {
        let mut play = place.begin(&["--set", "image=frt/web:2"]);
        place.waits_for("(batch 2 of 3): change");
        std::thread::sleep(Duration::from_millis(if back { 400 } else { 900 }));
        play.kill().unwrap();
        play.wait().unwrap();
        if back {
            let said = place.fanli(&["rollout", "rollback", "web.fp"]);
            eprintln!("{}", said.text);
            assert_eq!(said.code, 0, "{}", said.text);
            place.all_up();
            place.all_say("one");
            assert_eq!(same_again(&place.is()), same_again(&first));
        } else {
            let said = place.play(&["--set", "image=frt/web:2"]).good();
            eprintln!("{}", said.text);
            place.all_up();
            place.all_say("two");
        }
        place.is_tidy();
    }
}
