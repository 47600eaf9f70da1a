// golden write FILE: the spec's outputs for every golden case, one line each.
// golden check FILE: recompute and compare; also checks that another leaf length and the other
// order move the bits.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>

#include "../spec/version.h"
#include "golden_list.h"

namespace {

using bitlens::spec_tests::Case;
using bitlens::spec_tests::Op;

std::vector<std::string> computed_lines() {
  std::vector<std::string> lines = {std::string("# numerics version ") +
                                    bitlens::spec::kNumericsVersion};
  for (const Case& c : bitlens::spec_tests::golden_list()) {
    const std::vector<uint32_t> words = bitlens::spec_tests::evaluate_on_host(c);
    if (static_cast<int64_t>(words.size()) != bitlens::spec_tests::output_words(c)) {
      std::cerr << "output_words is wrong for " << bitlens::spec_tests::name_of(c.op) << "\n";
      exit(1);
    }
    lines.push_back(bitlens::spec_tests::line_of(c, words));
  }
  return lines;
}

bool controls_differ() {
  int differing = 0;
  for (Case c : bitlens::spec_tests::golden_list()) {
    if (!bitlens::spec_tests::is_linear_control(c.op)) continue;
    const std::vector<uint32_t> other = bitlens::spec_tests::evaluate_on_host(c);
    c.op = Op::kLinear;
    c.flag = 0;
    differing += bitlens::spec_tests::evaluate_on_host(c) != other;
  }
  return differing == 2;
}

int check(const char* path) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << "cannot read " << path << "\n";
    return 1;
  }
  size_t differing = 0;
  size_t count = 0;
  std::string stored;
  const std::vector<std::string> computed = computed_lines();
  for (; std::getline(file, stored); ++count) {
    if (count < computed.size() && stored == computed[count]) continue;
    ++differing;
    std::cout << "stored   " << stored << "\n";
    if (count < computed.size()) std::cout << "computed " << computed[count] << "\n";
  }
  if (!controls_differ()) {
    std::cout << "negative control failed: another leaf length or order has the same bits\n";
    return 1;
  }
  std::cout << computed.size() - 1 << " golden cases, " << differing << " differing lines\n";
  return differing == 0 && count == computed.size() ? 0 : 1;
}

int write(const char* path) {
  std::ofstream file(path);
  for (const std::string& line : computed_lines()) file << line << "\n";
  return file.good() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "write") == 0) return write(argv[2]);
  if (argc == 3 && strcmp(argv[1], "check") == 0) return check(argv[2]);
  std::cerr << "usage: golden write|check FILE\n";
  return 2;
}
