hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { source = "/etc/shadow" }
  file "/srv/b" { source = "../../secret" }
}
