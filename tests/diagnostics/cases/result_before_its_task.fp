hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/{{ made.changed }}"
  directory "/srv/a" as made
}
