//! Words of other tools, above all Ansible's, where a kind of task or a parameter is expected: what says the same here.

/// The way out for a word that stands where a task begins.
pub(super) fn for_kind(word: &str) -> Option<&'static str> {
    Some(match word {
        "copy" | "assemble" | "blockinfile" => {
            "a file on a host is `file \"/path\" { source = \"name\" }`, or with `content = \"…\"`"
        }
        "lineinfile" => "one line of a file is `line \"/path\" { line = \"…\" }`",
        "apt" | "yum" | "dnf" | "apk" | "pacman" => "packages are `package \"name\"`, by the manager that the host has",
        "systemd" | "sysvinit" => "a daemon is `service \"name\" { state = running }`",
        "supervisorctl" => "a program of a container's supervisor is `program \"name\" { … }`",
        "docker_container" | "docker" | "podman_container" => "a container is `container \"name\" { image = \"…\" }`",
        "docker_image" => "an image is `image \"name:tag\" { … }`",
        "docker_network" => "a network stands at the top of a playbook: `network \"name\" { … }`",
        "get_url" | "uri" => "a request is `http \"http://…\" { … }`",
        "wait_for" => "waiting for a port is `tcp \"10.0.0.1:80\" { within = 30s }`",
        "script" | "raw" | "expect" => "a program is `command [\"name\", \"word\"]`, lines of shell are `shell \"…\"`",
        "set_fact" | "vars" => "a name is set by `name = value`; `vars { … }` stands at the top of a playbook",
        "include_role" | "import_role" | "roles" => "a role is called by its name, like a kind of task: `site { … }`",
        "include_tasks" | "import_tasks" | "include" => {
            "a file is read by `import \"file.fp\"`, at the top of a playbook"
        }
        "block" | "tasks" | "pre_tasks" | "post_tasks" => {
            "tasks stand in the play itself; around several there may be `when … { … }`"
        }
        "handlers" => "each handler is `handler \"name\" { … }`, with its tasks inside",
        "loop" | "with_items" | "with_dict" | "foreach" => "a loop is `for name in list { … }`",
        "gather_facts" | "setup" => "facts are there wherever they are used: `facts.os.id`",
        "debug" | "assert" | "fail" => {
            "there is nothing like it: `fanli why` and `--check` show values, `when` decides"
        }
        "hosts" | "play" | "role" | "nodes" | "network" | "import" | "store" => {
            "it stands at the top of a playbook, not in a play"
        }
        _ => return None,
    })
}

/// The way out for a word that stands where a task's parameter does.
pub(super) fn for_parameter(word: &str) -> Option<&'static str> {
    Some(match word {
        "loop" | "with_items" | "with_dict" | "with_list" | "for_each" => {
            "a loop stands around tasks: `for name in list { … }`"
        }
        "register" => "a result gets its name before the `{`: `command [\"…\"] as name { … }`",
        "serial" | "max_fail_percentage" => "batches are the play's: `play \"…\" on hosts.web batch 2 { … }`",
        "delegate_to" | "run_once" => "another host has a play of its own",
        "ignore_errors" | "failed_when" => "a failure that does not stop the host: `ignore_failure = true`",
        "changed_when" => "a command that changes nothing: `changes = false`",
        "retries" | "delay" | "until" => "trying again: `within = 30s  every = 1s`, of `command`, `http` and `tcp`",
        "async" | "poll" => "a task's time limit is `timeout = 5m`; what goes on beside the play is a `service`",
        "chdir" | "cwd" => "the directory of a program is `dir = \"/path\"`",
        "become_user" => "the user of a program is `user = \"name\"`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playbook::BODY_WORDS;
    use crate::resource::kinds;

    #[test]
    fn no_word_that_is_known_here_is_translated() {
        for schema in kinds::schemas() {
            assert_eq!(for_kind(schema.name), None, "{}", schema.name);
            // Those of one kind may be another word's of others.
            let odd: Vec<&str> =
                schema.fields.iter().map(|field| field.name).filter(|name| for_parameter(name).is_some()).collect();
            assert!(odd.is_empty(), "{}: {odd:?}", schema.name);
        }
        assert!(BODY_WORDS.iter().all(|word| for_kind(word).is_none()));
    }
}
