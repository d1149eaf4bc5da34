hosts web {
  host "localhost" { connection = local }
}

play "web {{ facts.hostname }}" on hosts.web {
  for i in range(facts.hostname) {
    directory "/srv/{{ i }}"
  }
  file "/srv/a" { source = "{{ facts.hostname }}.conf" }
  directory "/srv/b" { tags = facts.hostname  notify = facts.hostname }
}
