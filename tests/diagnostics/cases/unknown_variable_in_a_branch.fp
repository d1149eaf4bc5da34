hosts web {
  host "localhost" { connection = local }
}

vars { big = false }

play "web" on hosts.web {
  when big {
    directory "/srv/{{ volume }}"
  }
}
