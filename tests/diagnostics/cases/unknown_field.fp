hosts web {
  host "localhost" { connection = local }
}

vars { apache = { workers = 3 } }

play "web" on hosts.web {
  directory "/srv/{{ apache.worker }}"
  directory "/srv/{{ host.adress }}"
}
