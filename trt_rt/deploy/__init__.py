"""What a program needs to run engines where there is no Python: the C++ runtime, and packages for it."""

from trt_rt.deploy.folders import CMAKE_FOLDER, INCLUDE_FOLDER, LIBRARY, LIBRARY_FOLDER, PKG_CONFIG_FOLDER

__all__ = ["CMAKE_FOLDER", "INCLUDE_FOLDER", "LIBRARY", "LIBRARY_FOLDER", "PKG_CONFIG_FOLDER"]
