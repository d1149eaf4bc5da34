hosts web {
  host "localhost" { connection = local }
}

vars {
  a = 9223372036854775807 + 1
  b = 10TiB * 100000000
  c = 1s - 2s
}

play "web" on hosts.web {
  directory "/srv/{{ a }}"
  directory "/srv/{{ b }}"
  directory "/srv/{{ c }}"
}
