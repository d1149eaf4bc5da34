# The web tier of the shop: Apache and PHP in containers on plain docker hosts, every node with an address of its own.
#
#   fanli play playbooks/web-tier.fp               one bare machine (env/local.fp)
#   fanli play playbooks/web-tier.fp --env lab     three hosts over SSH, made by `fanli lab up 3` (env/lab.fp)
#
#   fanli play playbooks/web-tier.fp --tags rollout       a changed template in templates/apache2, batch by batch
#   fanli rollout status|halt|resume|rollback playbooks/web-tier.fp
#
# What differs between environments (hosts, network, sizes, shares) stands in env/; the rest is the same everywhere.

vars {
  base_image = "fanli/base:12"
  web_image  = "fanli/web:{{ release }}"
  release    = 1               # of the application image
  web_nodes  = 3               # scaling out is this number
  domain     = "fanli.test"
  admin      = "tuangouadmin"  # runs the code and owns the logs, on hosts and in nodes
  admin_id   = 501

  # One log folder, one virtual host and one folder of code each.
  sites        = ["eagle", "event", "fun", "quan", "static", "super", "tuan", "www", "zhide"]
  default_site = "www"  # answers when no other name fits
  log_age      = 30d    # how long access logs are kept on the hosts
  log_store    = null   # where copies of them go: "rsync://HOST/weblogs"

  # workers * (php.memory + 16 MiB) is the most that a node uses: it must fit node_size.
  node_size   = 1GiB
  apache      = {
    start      = 4         # processes at the start,
    spare      = 4         # kept waiting,
    workers    = 12        # at most: each is one request
    log_level  = "warn"
    static_age = "1 hour"  # how long browsers keep static pages
  }
  php         = {
    memory  = "64M"  # of one request,
    seconds = 30     # that it may compute,
    upload  = "32M"  # and send
  }
  show_errors = false  # PHP's, to visitors: never in production
  proxies     = []     # load balancers whose X-Forwarded-For is believed

  conf   = "/data/rodata/cfg_file"  # configuration that nodes mount, read-only
  copies = 2                        # of it on each host: a change goes out one copy at a time

  # What a configuration must answer before any node sees it: the health check, and a page of each site that needs no database.
  trial_requests = [
    { path = "/ping" },
    { host = "eagle.{{ domain }}" },
    { host = "event.{{ domain }}" },
    { host = "fun.{{ domain }}" },
    { host = "quan.{{ domain }}" },
    { host = "static.{{ domain }}" },
    { host = "super.{{ domain }}" },
    { host = "tuan.{{ domain }}" },
    { host = "www.{{ domain }}" },
    { host = "zhide.{{ domain }}" },
  ]
}

# macvlan: each node hangs on the hosts' own network like one more machine. No NAT, no ports to run out of.
network "web-lan" {
  mode    = macvlan
  parent  = web_parent
  subnet  = web_subnet
  gateway = web_gateway
  pool    = web_pool
  mtu     = web_mtu
  shim    = true  # the host reaches its own nodes, which plain macvlan forbids
}

vars { hosts_reach_all = true }  # false with `mode = vxlan`: then a host is no part of the network, and reaches its own nodes alone

nodes web {
  count   = web_nodes
  on      = hosts.docker                            # spread evenly, kept where they are on the next run
  network = "web-lan"
  name    = "web{{ node.address | octets(3, 4) }}"  # web08246 is x.y.8.246
}

play "docker hosts" on hosts.docker {
  package ["docker.io", "iptables", "debootstrap"]
  when log_store != null {
    package ["rsync"]
  }

  service "docker" {
    state   = running
    enabled = true
    ready   = ["docker", "version"]  # succeeds once the daemon answers

    # Where neither systemd nor the distribution's script can start it: in a session of its own.
    fallback = {
      command  = ["dockerd", "--host", "unix:///run/docker.sock"]
      pid_file = "/run/docker.pid"
      log      = "/var/log/dockerd.log"
    }
  }

  # Plugs the nodes' addresses again whenever a container, Docker or the host was started again: `fanli status`.
  watcher {}

  group admin { gid = admin_id }
  user admin { uid = admin_id  group = admin  home = "/nonexistent"  shell = "/usr/sbin/nologin" }

  # Code and static pages: on network shares in production, where every host mounts the same two.
  for name in ["fanliweb", "webdata"] {
    share = shares[name]
    directory "/opt/share/{{ name }}"  # its mode is that of what is mounted there

    when share.type == "bind" {
      directory share.from { mode = 0755 }
    }
    mount "/opt/share/{{ name }}" { type = share.type  from = share.from  options = share.options }
  }
}

play "images" on hosts.docker {
  # The distribution alone, from its own mirror: no registry and no account is needed anywhere.
  image base_image { bootstrap = debian("bookworm") }

  # What runs on it. An unchanged folder is not even looked into.
  image web_image {
    context = "images/web"  # Dockerfile, cfg/, scripts/
    args    = { BASE = base_image  ADMIN = admin  UID = admin_id }
    keep    = 5
  }
}

play "what nodes mount" on hosts.docker {
  directory conf { mode = 0755 }

  # Where no release process fills the shares, pages that say who answers.
  when sample_pages {
    for site in sites {
      for share in ["fanliweb", "webdata"] {
        directory "/opt/share/{{ share }}/{{ site }}" { mode = 0755 }
      }
      file "/opt/share/webdata/{{ site }}/index.php" { source = "templates/site/index.php" }
    }
    file "/opt/share/webdata/ping.php" { source = "templates/site/index.php" }
    file "/opt/share/fanliweb/index.html" { content = "static pages\n" }
  }
}

# What visitors talk to. Where the environment has no balancers they talk to the nodes.
play "load balancers" on hosts.balancers {
  haproxy = ["haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"]

  package ["haproxy"]
  template "/etc/haproxy/haproxy.cfg" {
    source   = "templates/haproxy/haproxy.cfg"
    validate = ["haproxy", "-c", "-f", "{file}"]
    notify   = "reload haproxy"
  }
  service "haproxy" {
    state    = running
    fallback = { command = haproxy }
  }

  handler "reload haproxy" {
    service "haproxy" {
      state    = reloaded
      fallback = { command = haproxy }
    }
  }
}

# Where hosts store copies of access logs, by rsync. Where the environment has no such hosts, set log_store to a storage that is there, or to null.
play "log stores" on hosts.log_stores {
  log_folder = "/data/logstore"
  rsync      = ["rsync", "--daemon", "--no-detach"]

  package ["rsync"]
  directory log_folder { owner = "nobody"  group = "nogroup"  mode = 0750 }
  logs log_folder { age = 365d  floor = 1GiB }
  template "/etc/rsyncd.conf" { source = "templates/rsync/rsyncd.conf" }  # read anew for each connection
  service "rsync" {
    state    = running
    fallback = { command = rsync }
  }
}

# What a node answers that is well: its health check, and a page of each site.
role web_answers() {
  http "http://{{ node.address }}/ping" { times = 2  every = 500ms  within = 30s }
  for site in sites {
    http "http://{{ node.address }}/" { host = "{{ site }}.{{ domain }}"  within = 10s }
  }
}

# The configuration of Apache and of supervisor: some copies of it on each host, every one mounted by some of the nodes, changed one after
# another. On a new host there are no nodes yet: it is laid out, and they start with it.
rollout "configuration" on nodes.web batch [1, 25%, 100%] {
  max_down = 25%
  within   = 10m  # when the controller goes away in the middle, the hosts put back what it did not confirm

  # Each copy once in a container of its own, as a node would have it, before any node sees it.
  config "{{ conf }}/apache2/{{ node.local_index % copies }}" {
    from = "templates/apache2"

    trial {
      validate = ["apachectl", "-t"]
      start    = ["/usr/local/apache2/bin/httpd", "-D", "FOREGROUND"]
      requests = trial_requests
    }
  }
  config "{{ conf }}/supervisor/{{ node.local_index % copies }}" {
    from = "templates/supervisor"

    trial {
      start    = [
        "/usr/bin/supervisord",
        "--nodaemon",
        "--configuration",
        "/usr/local/supervisor/current/supervisord.conf",
      ]
      requests = [{ path = "/ping" }]

      ready_within = 15s
    }
  }

  drain on hosts.balancers {
    backend node.name { haproxy = "/run/haproxy/admin.sock"  pool = "web" }
  }

  reload {
    reload node.name { supervisor = "apache2"  validate = ["apachectl", "-t"] }
    program "refresh" { container = node.name }
  }

  healthy {
    loaded node.name {
      url        = "http://{{ node.address }}/generation"
      header     = "X-Generation"
      generation = generation
      container  = node.name
      slot       = "{{ conf }}/apache2/{{ node.local_index % copies }}"
    }
    web_answers {}
  }
}

# One node: its folders on the host, its container, its address.
role web_node(image: string, sites: list, memory: size = 1GiB) {
  home = "/data/containers/{{ node.name }}"

  # Whatever changes often is on the host: nothing is lost with the container, and its own layer stays empty.
  directory "{{ home }}/weblogs" { mode = 0755 }
  for site in sites {
    directory "{{ home }}/weblogs/{{ site }}" { owner = admin  group = admin  mode = 0755 }
  }
  # Every hour the host compresses and removes, also when the container is gone: `fanli logs plan` on it.
  logs "{{ home }}/weblogs" {
    pack  = zstd
    age   = log_age
    floor = 1GiB
    ship  = "{{ log_store }}/{{ node.name }}" if log_store != null else null
  }
  directory "{{ home }}/webdata" { owner = admin  group = admin  mode = 0775 }
  for folder in ["cache", "sessions", "uploads"] {
    directory "{{ home }}/webdata/{{ folder }}" { owner = admin  group = admin  mode = 0700 }
  }

  container node.name {
    image        = image
    memory       = memory
    mounts       = [
      "{{ home }}/weblogs"                                    -> "/data/weblogs",
      "{{ home }}/webdata"                                    -> "/usr/local/webdata",
      "/opt/share/fanliweb"                                   -> "/opt/fanliweb" read_only,
      "/opt/share/webdata"                                    -> "/opt/webdata" read_only,
      "{{ conf }}/apache2/{{ node.local_index % copies }}"    -> "/usr/local/apache2/conf" read_only,
      "{{ conf }}/supervisor/{{ node.local_index % copies }}" -> "/usr/local/supervisor" read_only,
    ]
    tmpfs        = ["/run:mode=0755"]  # sockets and pid files do not outlive a start
    labels       = { tier = "web" }
    tools        = true                # fanli in the node: it writes the logs, and loads what was edited by hand
    extra_hosts  = ["{{ node.name }}:{{ node.address }}"]
    stop_timeout = 15s                 # Apache finishes what it has begun: see templates/supervisor

    attach "web-lan" { address = node.address }
  }
}

# The nodes themselves, made where there are none; another image makes them anew, batch by batch, and goes back when it is not good.
# What was changed by hand is mended first.
rollout "nodes" on nodes.web batch [1, 25%, 100%] {
  max_down = 25%

  drain on hosts.balancers {
    backend node.name { haproxy = "/run/haproxy/admin.sock"  pool = "web" }
  }

  change {
    web_node { image = web_image  sites = sites  memory = node_size }
  }

  healthy {
    web_answers {}
  }
}

# From every host to every node: its own over the shim, the others' over the wire.
play "every node answers" on hosts.docker {
  for node in nodes.web {
    when hosts_reach_all or node.host == host.name {
      http "http://{{ node.address }}/index.php" { status = 200  contains = node.name  within = 30s }
    }
  }
}
