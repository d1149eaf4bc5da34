hosts web {
  host "localhost" { connection = local }
}

vars { name = "a" }

play "web" on hosts.web {
  directory "/srv/{{ name | uper }}"
}
