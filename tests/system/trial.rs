//! `trial` against a real daemon, with real Apache, nginx and haproxy: what their own checks let through is refused here
//! (research/rollout-and-logs.md, M6), and nothing is left behind.

use std::time::Duration;

use fanli::failure::Failure;
use fanli::value::Value;

use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Report, Task, task};

/// The image of all nodes here: almost nothing, as this machine's programs are mounted into it.
const IMAGE: &str = "fanli/ftr:1";

pub fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| Value::from(*item)).collect())
}

pub fn map(items: &[(&str, Value)]) -> Value {
    Value::Map(items.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// A generation's ID for a letter.
pub fn id(letter: char) -> String {
    format!("0000000000{letter}0")
}

/// A host with a slot and a node that mounts it.
pub struct Site<'a> {
    pub host: &'a Host,
    /// What every task here says.
    pub common: Vec<(&'static str, Value)>,
}

impl<'a> Site<'a> {
    pub fn new(host: &'a Host) -> Self {
        host.must(&format!(
            "d=$(mktemp -d); cd $d; mkdir usr etc tmp run var; mkdir -p var/log/nginx var/log/apache2 var/lib/nginx srv conf; \
             for name in bin sbin lib lib64; do ln -s usr/$name $name; done; chmod 1777 tmp; \
             printf 'root:x:0:0::/:/bin/sh\\nwww-data:x:33:33::/:/bin/false\\n' > etc/passwd; \
             printf 'root:x:0:\\nwww-data:x:33:\\n' > etc/group; \
             tar -c . | docker import - {IMAGE} >/dev/null; cd /; rm -rf $d; \
             mkdir -p /data/slot/generations /data/www/a /data/logs/sites; echo hello > /data/www/a/index.html; \
             echo kept > /data/logs/old.log; chown 33:33 /data/logs/sites"
        ));
        let common = vec![("path", "/data/slot".into()), ("like", "ftr-web".into())];
        Self { host, common }
    }

    /// Stages a generation of one file, and more by a script that runs in it.
    pub fn stage(&self, letter: char, file: &str, text: &str, more: &str) {
        let place = format!("/data/slot/generations/{}", id(letter));
        self.host.must(&format!("mkdir -p {place}; cat > {place}/{file} <<'END'\n{text}\nEND\ncd {place}; {more}"));
    }

    /// Starts the node with that command, and gives it an address.
    pub fn node(&self, command: &str, address: &str) {
        self.host.must(&format!(
            "ln -sfn generations/{} /data/slot/current; docker run -d --name ftr-web --hostname node --net none \
             --memory 300m --env STAGE=test -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v /data/slot:/conf:ro \
             -v /data/www:/srv/www:ro -v /data/logs:/var/log/apache2 {IMAGE} {command}; sleep 1; \
             docker logs ftr-web >&2; nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' ftr-web) -n ip addr add {address}/32 dev lo",
            id('a')
        ));
    }

    pub fn trial(&self, letter: char, more: &[(&'static str, Value)]) -> Task {
        let own = [("generation", Value::from(id(letter)))];
        task("trial", self.common.iter().cloned().chain(own).chain(more.iter().cloned()))
    }

    pub fn try_it(&self, letter: char, more: &[(&'static str, Value)]) -> Report {
        self.host.drive().one(&self.trial(letter, more))
    }

    /// What a trial must not touch: the slot, the node's logs, the node itself, everything on the host.
    pub fn seen(&self) -> String {
        self.host.must(
            "find /data -ls | sort; docker ps -a --format '{{.Names}} {{.State}}'; docker volume ls -q; \
             docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' ftr-web; find /var/lib/fanli -path '*/trial/*'; \
             p=$(docker inspect -f '{{.State.Pid}}' ftr-web); nsenter -t $p -n ss -Hltn | sort; nsenter -t $p -n ip -o addr",
        )
    }

    /// Is refused, and leaves nothing behind.
    pub fn refused(&self, letter: char, more: &[(&'static str, Value)]) -> String {
        let before = self.seen();
        let report = self.try_it(letter, more);
        assert_eq!(self.seen(), before, "generation {letter} left something behind");
        shown(report.failed())
    }
}

/// A failure as a person sees it, without what differs from run to run.
pub fn shown(failure: &Failure) -> String {
    let causes = failure.causes.iter().map(|cause| format!("  {}", cause.replace('\n', "\n  ")));
    let hint = failure.hint.iter().map(|hint| format!("hint: {hint}"));
    let text: Vec<String> = std::iter::once(failure.message.clone()).chain(causes).chain(hint).collect();
    let text = text.join("\n");
    let mut lines: Vec<String> = text.lines().filter(|line| !passing(line)).map(plain).collect();
    // A log of which nothing is left.
    lines.pop_if(|last| last.starts_with("  the last lines of "));
    lines.join("\n")
}

/// Versions (AH01882 tells that this machine's OpenSSL is older than its Apache's), and what is logged of requests: maybe later
/// than it is read.
fn passing(line: &str) -> bool {
    ["AH01882", "haproxy version is", "access.log:", "127.0.0.1 - - [", "it said `<html>"]
        .iter()
        .any(|text| line.contains(text))
}

fn plain(line: &str) -> String {
    let mut words = Vec::new();
    let mut number = false;
    for word in line.split(' ') {
        let digits = word.trim_end_matches(',');
        words.push(if number && digits.parse::<u32>().is_ok() { word.replace(digits, "N") } else { word.to_owned() });
        number = word == "process";
    }
    let line = words.join(" ");
    // The time, the level and the process before the text of Apache and nginx.
    let line = match line.find("] AH").or_else(|| line.rfind("] ")) {
        Some(at) if line.trim_start().starts_with('[') && line.contains("[pid ") => format!("  {}", &line[at + 2..]),
        _ => line,
    };
    let clock = |word: &str| {
        let number = word.len() >= 8 && word.contains(['/', ':']) || word.ends_with(':') && word.contains('#');
        number && word.chars().all(|c| c.is_ascii_digit() || "/:#".contains(c))
    };
    let words = line.split(' ').filter(|word| !clock(word) && !word.starts_with("Apache/"));
    words.collect::<Vec<_>>().join(" ")
}

fn apache(more: &str) -> String {
    format!(
        "ServerName node.example\nServerRoot /tmp\nPidFile /tmp/apache.pid\nMutex file:/tmp\n\
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so\n\
         User www-data\nGroup www-data\nStartServers 1\n\
         ErrorLog /var/log/apache2/error.log\nTransferLog /var/log/apache2/sites/access.log\n{more}"
    )
}

const GOOD: &str = "Listen 80\nDocumentRoot /srv/www/a";

fn apache_argv(last: &str) -> Value {
    list(&["apache2", "-f", "/conf/current/httpd.conf", last])
}

#[test]
fn what_apaches_own_check_lets_through_is_refused() {
    let hosts = Hosts::start("ftra", 1);
    let mut site = Site::new(&hosts.hosts[0]);
    let host = site.host;
    site.common.extend([
        ("validate", apache_argv("-t")),
        ("start", apache_argv("-DFOREGROUND")),
        ("requests", map(&[("host", "www.example.org".into()), ("contains", "hello".into())])),
    ]);
    site.stage('a', "httpd.conf", &apache(GOOD), "");
    site.node("apache2 -f /conf/current/httpd.conf -DFOREGROUND", "10.83.0.5");
    host.must("docker exec -d ftr-web busybox httpd -f -p 8081");

    // The node's own generation passes, in check mode nothing is made, and what passed is not tried again.
    let before = site.seen();
    let mut look = host.drive();
    look.apply = false;
    assert!(look.one(&site.trial('a', &[])).change.is_some());
    assert_eq!(site.seen(), before);
    let passed = site.try_it('a', &[]);
    assert_eq!(passed.fields(), ["tried"]);
    let listens = format!("{:?}", passed.output["listens"]);
    assert!(listens.contains("80") && listens.contains("/usr/sbin/apache2"), "{listens}");
    assert_eq!(site.seen(), before);
    let second = site.try_it('a', &[]);
    second.no_change();
    assert_eq!(second.output["listens"], passed.output["listens"]);
    println!("a trial: {} ms, looking again: {} us", passed.apply_us / 1000, second.observe_us);

    // Its own address, another site, TLS with a name, and a subdirectory for logs that is the web user's.
    let more = format!(
        "{GOOD}\nListen 10.83.0.5:8090\nListen 443\n\
         LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n\
         <VirtualHost *:8090>\nServerName other\nDocumentRoot /srv/www/a\n</VirtualHost>\n\
         <VirtualHost *:443>\nServerName plain.example\nSSLEngine on\nSSLCertificateFile /conf/current/tls.pem\n\
         DocumentRoot /srv/www/none\n</VirtualHost>\n\
         <VirtualHost *:443>\nServerName tls.example\nSSLEngine on\nSSLCertificateFile /conf/current/tls.pem\n\
         SSLStrictSNIVHostCheck on\nDocumentRoot /srv/www/a\n</VirtualHost>"
    );
    let certificate = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=tls.example -days 30 -keyout key -out crt 2>/dev/null; \
                       cat key crt > tls.pem";
    site.stage('b', "httpd.conf", &apache(&more), certificate);
    let asked = Value::List(vec![
        map(&[]),
        map(&[("host", "www.example.org".into()), ("path", "/nothing".into()), ("status", Value::Int(404))]),
        map(&[("port", Value::Int(8090)), ("host", "other".into())]),
        map(&[("tls", Value::Bool(true)), ("host", "tls.example".into()), ("contains", "hello".into())]),
    ]);
    assert_eq!(site.try_it('b', &[("requests", asked.clone())]).fields(), ["tried"]);
    site.try_it('b', &[("requests", asked)]).no_change();

    let mut snaps = crate::snap::Snaps::beside("system");
    let ssl = "LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n";
    let no_certificate = format!(
        "{ssl}{GOOD}\nListen 443\n<VirtualHost *:443>\nSSLEngine on\nSSLCertificateFile /conf/current/tls.pem\n</VirtualHost>"
    );
    let hangs = format!(
        "{ssl}SSLPassPhraseDialog exec:/conf/current/ask\nListen 80\nDocumentRoot /srv/www/a\nListen 443\n<VirtualHost *:443>\n\
         SSLEngine on\nSSLCertificateFile /conf/current/crt\nSSLCertificateKeyFile /conf/current/key\n</VirtualHost>"
    );
    let locked = "openssl req -x509 -newkey rsa:2048 -passout pass:secret -subj /CN=x -days 30 -keyout key -out crt 2>/dev/null; \
                  printf '#!/bin/sh\\nexec sleep 600\\n' > ask; chmod 755 ask";
    // In the main server it would be refused by the check.
    let missing =
        "Listen 80\n<VirtualHost *:80>\nServerName www.example.org\nDocumentRoot /srv/www/none\n</VirtualHost>";
    let cases = [
        ("syntax", "Listen 80\nDocumentRot /srv/www/a".to_owned(), ""),
        ("piped_logger", format!("{GOOD}\nCustomLog \"|/usr/bin/no-such-logger\" %h"), ""),
        ("certificate", no_certificate, "echo 'this is no certificate' > tls.pem"),
        ("taken_port", format!("{GOOD}\nListen 8081"), ""),
        ("foreign_address", format!("{GOOD}\nListen 10.83.9.9:8080"), ""),
        ("document_root", missing.to_owned(), ""),
        ("hanging_start", hangs, locked),
        ("other_port", "Listen 8080\nDocumentRoot /srv/www/a".to_owned(), ""),
    ];
    for ((name, more, script), letter) in cases.iter().zip('1'..) {
        site.stage(letter, "httpd.conf", &apache(more), script);
        // All but the first pass Apache's own check, as their messages tell.
        let brief = [
            ("ready_within", Value::Duration(Duration::from_secs(3))),
            ("request_timeout", Value::Duration(Duration::from_secs(5))),
        ];
        snaps.compare(&format!("trial_{name}"), &site.refused(letter, &brief));
    }
    // Other ways to be refused.
    let start = |argv: &[&str]| [("start", list(argv))];
    snaps.compare("trial_no_program", &site.refused('a', &start(&["/usr/sbin/no-such-program"])));
    snaps.compare("trial_background", &site.refused('a', &start(&["true"])));
    snaps.compare("trial_not_staged", &site.refused('9', &[]));
    let slow = [("validate", list(&["sleep", "60"])), ("validate_within", Value::Duration(Duration::from_millis(700)))];
    snaps.compare("trial_slow_check", &site.refused('a', &slow));
    snaps.compare("trial_not_mounted", &site.refused('a', &[("path", "/data".into())]));
    snaps.compare("trial_no_node", &site.refused('a', &[("like", "ftr-none".into())]));

    // A port that is taken later is found without another trial of the same.
    site.stage('c', "httpd.conf", &apache(&format!("{GOOD}\nListen 8082")), "");
    assert_eq!(site.try_it('c', &[]).fields(), ["tried"]);
    site.try_it('c', &[]).no_change();
    host.must("docker exec -d ftr-web busybox httpd -f -p 8082; sleep 0.5");
    assert!(shown(site.try_it('c', &[]).failed()).contains("/usr/bin/busybox"));
    // The mark is of these arguments, this image, this node.
    site.try_it('a', &[]).no_change();
    assert_eq!(site.try_it('a', &[("hosts", list(&["db:10.0.0.5"]))]).fields(), ["tried"]);
    host.must("docker rm -f ftr-web");
    assert_eq!(
        shown(site.try_it('a', &[]).failed()).lines().next(),
        Some("there is no container ftr-web to try generation 0000000000a0 in")
    );
    snaps.end();
}
