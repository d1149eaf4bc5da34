vars {
  web_nodes = missing_name
  web_mode  = 644
}
