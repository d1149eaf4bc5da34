hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory ＂/srv/a＂
  directory "/srv/b" { mode = ０７５５ }
  directory "/srv/c" { mode ＝ 0755 }
}
