hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  service "nginx" { state = started }
  package "nginx" { state = latest }
  directory "/srv/a" { state = removed }
}
