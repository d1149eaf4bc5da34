//! What makes each manager run the watcher.

use super::{Managed, Watcher};

/// The first line of every file that belongs to it: others are never touched.
pub(super) const MARK: &str = "Made by fanli for its task `watcher`: what is changed here is lost.";

impl Watcher {
    /// Program and arguments.
    pub(super) fn command(&self, state_dir: &str) -> Vec<String> {
        let every = crate::value::show_duration(self.every);
        let words = [&self.program.0, "watch", "--every", &every, "--parallel", &self.parallel.to_string()];
        words.into_iter().chain(["--state-dir", state_dir]).map(str::to_owned).collect()
    }

    /// Where the manager's file is; `None` where it needs none.
    pub(super) fn unit_path(&self, manager: Managed) -> Option<String> {
        match manager {
            Managed::Systemd => Some(format!("/etc/systemd/system/{}.service", self.name)),
            Managed::Sysvinit => Some(format!("/etc/init.d/{}", self.name)),
            Managed::Supervisor => Some(format!("{}/{}.conf", self.programs.0, self.name)),
            Managed::Nobody => None,
        }
    }

    /// Its content.
    pub(super) fn unit(&self, manager: Managed, state_dir: &str) -> String {
        let (name, log) = (&self.name, &self.log.0);
        let command = self.command(state_dir).join(" ");
        match manager {
            Managed::Systemd => format!(
                "# {MARK}
[Unit]
Description=fanli watcher: keeps the interfaces of this host's containers
# After Docker, but not with it: it waits for a daemon that is not there, and for one that comes back.
After=network.target docker.service

[Service]
ExecStart={command}
Restart=always
# Slower than systemd's limit of starts: it is to be there for ever.
RestartSec=3
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"
            ),
            Managed::Supervisor => format!(
                "; {MARK}
[program:{name}]
command={command}
autostart=true
autorestart=true
startsecs=1
stopwaitsecs=10
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"
            ),
            Managed::Sysvinit => format!(
                r#"#!/bin/sh
# {MARK}
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      docker
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: keeps the interfaces of this host's containers
### END INIT INFO
# chkconfig: 2345 96 04
# description: keeps the interfaces of this host's containers

program={program}
pid_file=/run/{name}.pid
log={log}

# Its process, when it is this program: numbers are used again. An upgrade replaces the file of a running program.
running() {{
  pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] || return 1
  case $(readlink "/proc/$pid/exe") in "$program" | "$program (deleted)") ;; *) return 1 ;; esac
}}

case $1 in
  start)
    running && exit 0
    setsid {command} --pid-file "$pid_file" </dev/null >>"$log" 2>&1 &
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
      running && exit 0
      sleep 0.2
    done
    echo "it did not start: $(tail -n 1 "$log")"
    exit 1
    ;;
  stop)
    running || exit 0
    kill "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      running || exit 0
      sleep 1
    done
    kill -9 "$pid"
    ;;
  restart | force-reload)
    "$0" stop && exec "$0" start
    ;;
  status)
    running && echo "running" && exit 0
    echo "stopped"
    exit 3
    ;;
  *)
    echo "Usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
"#,
                program = self.program.0
            ),
            Managed::Nobody => String::new(),
        }
    }
}
