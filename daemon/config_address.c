/*
 * config_address.c: addresses of the configuration, HOST:PORT.
 *
 * A host is judged as what getaddrinfo() makes of it, however it is spelled: "127.1" is this machine, "127.example.org"
 * is not, and "0" is all of its addresses. Names are not looked up.
 *
 * Plain functions; nothing is owned.
 */
#include "daemon/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *config_address_fault(const char *address)
{
	static const char form[] = "must be HOST:PORT, as in \"127.0.0.1:9750\"";
	const char *colon = strrchr(address, ':');
	char *end;
	if (!colon || colon == address || !isdigit((unsigned char)colon[1]))
		return form;
	long port = strtol(colon + 1, &end, 10);
	if (*end != '\0')
		return form;
	if (port < 1 || port > 65535)
		return "must have a port from 1 to 65535";
	if (address[0] == '[')
		return colon[-1] == ']' && colon - address > 2 ? NULL : form;
	if (memchr(address, ':', (size_t)(colon - address)))
		return "must have an IPv6 address in brackets, as in \"[::1]:9750\"";
	for (const char *c = address; c < colon; c++) {
		if (!isalnum((unsigned char)*c) && !strchr(".-", *c))
			return form;
	}
	return NULL;
}

void config_address_host(const char *address, char host[static CONFIG_TEXT_MAX])
{
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : strlen(address);
	bool has_brackets = len >= 2 && address[0] == '[' && address[len - 1] == ']';
	snprintf(host, CONFIG_TEXT_MAX, "%.*s", (int)len - 2 * has_brackets, address + has_brackets);
}

bool config_address_is_loopback(const char *address)
{
	char host[CONFIG_TEXT_MAX];
	struct in_addr v4;
	struct in6_addr v6;
	config_address_host(address, host);
	if (inet_aton(host, &v4))
		return ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcmp(host, "localhost") == 0;
}

bool config_address_is_any(const char *address)
{
	char host[CONFIG_TEXT_MAX];
	struct in_addr v4;
	struct in6_addr v6;
	config_address_host(address, host);
	if (inet_aton(host, &v4))
		return v4.s_addr == INADDR_ANY;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6);
}
